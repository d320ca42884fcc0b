"""A candidate as a folder to deploy from."""

from nas.common.moved import names_of

__getattr__ = names_of(__name__, "nas.export.folder")
