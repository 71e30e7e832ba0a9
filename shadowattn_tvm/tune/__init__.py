"""MetaSchedule on the kernels it helps: tiles are searched for, measured, and kept as records."""

from .document import Tuning, TuningRow, save_tuning
from .measure import Rpc
from .run import TuneSettings, require_tunable, select_workloads, tune

__all__ = [
    "Rpc",
    "TuneSettings",
    "Tuning",
    "TuningRow",
    "require_tunable",
    "save_tuning",
    "select_workloads",
    "tune",
]
