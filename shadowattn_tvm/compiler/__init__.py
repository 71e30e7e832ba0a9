"""From a model directory and a plan to a model library."""

from .library import CompiledLibrary, Phase, check_plan, compile_library, compile_open_library
from .targets import resolve_target, target_names

__all__ = [
    "CompiledLibrary",
    "Phase",
    "check_plan",
    "compile_library",
    "compile_open_library",
    "resolve_target",
    "target_names",
]
