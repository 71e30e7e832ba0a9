"""Calibration: from a model directory and texts to a plan. With `evaluate`, the user of torch."""

from .allocation import Ratios, kept_pairs, past_fraction, scale_to_budget, sparse_pairs
from .budget import PairBudget
from .build_plan import Method, MethodContext, MethodName, calibrate, with_ratios
from .fisher import fisher_ratios
from .pilot_chunk import PilotChunk
from .progress import StageProgress
from .reference_model import AttentionFunction, ReferenceModel, dense_attention
from .resume import PartialResults
from .settings import DEFAULT_K_MIN, CalibrationSettings
from .simulate import ShadowAttention
from .subject import Subject, prepare_subject
from .uniform import UNIFORM_DENSE_LAYERS, uniform_ratios

__all__ = [
    "DEFAULT_K_MIN",
    "UNIFORM_DENSE_LAYERS",
    "AttentionFunction",
    "CalibrationSettings",
    "Method",
    "MethodContext",
    "MethodName",
    "PairBudget",
    "PartialResults",
    "PilotChunk",
    "Ratios",
    "ReferenceModel",
    "ShadowAttention",
    "StageProgress",
    "Subject",
    "calibrate",
    "dense_attention",
    "fisher_ratios",
    "kept_pairs",
    "past_fraction",
    "prepare_subject",
    "scale_to_budget",
    "sparse_pairs",
    "uniform_ratios",
    "with_ratios",
]
