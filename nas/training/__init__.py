"""Training: the loop, its steps, augmentation, and supernets."""
