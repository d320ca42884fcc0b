"""An earlier address of `nas.data.image_files`, for programs that use it."""

from nas.data.image_files import list_files, to_pixels

__all__ = ["list_files", "to_pixels"]
