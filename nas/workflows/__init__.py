"""What a user starts: a search, full trainings, reference networks, a test of fidelity."""
