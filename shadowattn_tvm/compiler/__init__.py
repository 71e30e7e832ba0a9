"""From a model directory and a plan to a model library."""

from .library import CompiledLibrary, Phase, check_plan, compile_library, compile_open_library
from .targets import resolve_target, target_names
from .tuning import model_workloads, target_folder
from .tuning_database import plain_target

__all__ = [
    "CompiledLibrary",
    "Phase",
    "check_plan",
    "compile_library",
    "compile_open_library",
    "model_workloads",
    "plain_target",
    "resolve_target",
    "target_folder",
    "target_names",
]
