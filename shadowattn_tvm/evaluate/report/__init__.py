"""Sweeps for people: a Markdown table and a plot beside the JSON."""

from .write import require_plots, write_report

__all__ = ["require_plots", "write_report"]
