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
from .head_order import HeadOrder, UnitLaunches, head_order, unit_launches
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
    "HeadOrder",
    "HeadPlan",
    "LayerPlan",
    "Pilot",
    "Plan",
    "PlannedModel",
    "Provenance",
    "RatioProfile",
    "Sharing",
    "StageCosts",
    "UnitLaunches",
    "find_plan",
    "head_order",
    "load_plan",
    "load_ratios",
    "plan_hash",
    "save_plan",
    "save_ratios",
    "unit_launches",
]
