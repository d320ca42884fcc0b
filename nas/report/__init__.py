"""The report: figures of a run and one self-contained HTML page."""

from nas.report.html import write_report

__all__ = ["write_report"]
