"""What a network is for: targets, loss and scores."""
