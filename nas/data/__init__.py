"""Data sets: images and labels in three splits, from folders, archives, names and functions."""
