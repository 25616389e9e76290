"""One self-contained page with the figures of a demo run, drawn from results.json alone."""

from mnemos.report.page import page, write

__all__ = ["page", "write"]
