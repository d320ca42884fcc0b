"""The report: figures of a run, one self-contained HTML page, and the front as a picture."""

from nas.views.report.html import write_front, write_report

__all__ = ["write_front", "write_report"]
