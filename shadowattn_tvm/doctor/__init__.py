"""What this machine has, what each missing piece would enable, and how to install it."""

from .document import Finding, Report, save_report
from .examination import examine

__all__ = ["Finding", "Report", "examine", "save_report"]
