"""Latency of any module, measured under a stated protocol on a device that nobody else uses meanwhile."""
