"""Training: the loop, its steps, augmentation, and supernets."""

from nas.common.moved import names_of

__getattr__ = names_of(__name__, "nas.views.reported", "nas.workflows.train")
