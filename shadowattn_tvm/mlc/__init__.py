"""MLC-LLM with shadowAttn: its own commands, and one flag.

The only place that imports `mlc_llm`, and that only when one of its commands runs.
"""

from .checkout import SOURCE_VARIABLE
from .command import run
from .installation import TESTED, is_installed

__all__ = ["SOURCE_VARIABLE", "TESTED", "is_installed", "run"]
