"""The plan: the one document calibration writes and compilation reads."""

from .document import (
    SCHEMA_VERSION,
    BucketGrid,
    CorpusDocument,
    HeadPlan,
    LayerPlan,
    Pilot,
    Plan,
    PlannedModel,
    Provenance,
    Sharing,
)
from .store import load_plan, plan_hash, save_plan

__all__ = [
    "SCHEMA_VERSION",
    "BucketGrid",
    "CorpusDocument",
    "HeadPlan",
    "LayerPlan",
    "Pilot",
    "Plan",
    "PlannedModel",
    "Provenance",
    "Sharing",
    "load_plan",
    "plan_hash",
    "save_plan",
]
