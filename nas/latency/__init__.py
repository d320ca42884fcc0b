"""Latency of any module, measured under a stated protocol on a device that nobody else uses meanwhile."""

from nas.common.moved import names_of

__getattr__ = names_of(
    __name__,
    "nas.latency.measuring",
    "nas.latency.in_turn",
    "nas.latency.folding",
    "nas.latency.protocol",
    "nas.latency.result",
)
