"""Networks built from an `Architecture`. Importing this package imports torch."""

from nas.model.network import build

__all__ = ["build"]
