"""Data sets: images and labels in three splits, from folders, archives, names and functions."""

from nas.common.moved import names_of

__getattr__ = names_of(__name__, "nas.data.sets", "nas.data.image_data")
