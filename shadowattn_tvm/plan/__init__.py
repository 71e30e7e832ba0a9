"""The plan: the one document calibration writes and compilation reads."""

from .document import (
    SCHEMA_VERSION,
    CorpusDocument,
    Decode,
    HeadPlan,
    LayerPlan,
    Plan,
    PlannedModel,
    Provenance,
)
from .ratios import RatioProfile, load_ratios, save_ratios
from .settings import BucketGrid, Pilot, Sharing
from .stage_costs import StageCosts
from .store import OFF, find_plan, load_plan, plan_hash, save_plan

__all__ = [
    "OFF",
    "SCHEMA_VERSION",
    "BucketGrid",
    "CorpusDocument",
    "Decode",
    "HeadPlan",
    "LayerPlan",
    "Pilot",
    "Plan",
    "PlannedModel",
    "Provenance",
    "RatioProfile",
    "Sharing",
    "StageCosts",
    "find_plan",
    "load_plan",
    "load_ratios",
    "plan_hash",
    "save_plan",
    "save_ratios",
]
