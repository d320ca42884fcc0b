"""From an architecture to a network, and the weights that it starts from."""
