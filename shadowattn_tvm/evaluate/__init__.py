"""Evaluation on the compiled library: what shadowAttn costs, measured against the dense model."""

from .context import EvaluationContext, EvaluationSettings
from .results import EvaluationRecord, load_record, save_record
from .run import EvaluationRequest, evaluate

__all__ = [
    "EvaluationContext",
    "EvaluationRecord",
    "EvaluationRequest",
    "EvaluationSettings",
    "evaluate",
    "load_record",
    "save_record",
]
