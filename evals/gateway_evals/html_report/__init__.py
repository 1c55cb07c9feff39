"""A run, or several, as one HTML file that needs nothing else: figures, plots, differences, every sample.

`gathering` reads what is on disk, `embedding` packs the samples, `plots` lays out pictures, `page` writes the file.
"""

from __future__ import annotations

from gateway_evals.html_report.page import write_report

__all__ = ["write_report"]
