"""Calibration: from a model directory and texts to a plan. With `evaluate`, the user of torch."""

from .allocation import Ratios, Strides, kept_pairs, past_fraction, scale_to_budget, sparse_pairs
from .budget import PairBudget
from .build_plan import (
    Method,
    MethodContext,
    MethodName,
    StrideChoice,
    calibrate,
    with_ratios,
    with_strides,
)
from .fisher import fisher_ratios
from .pilot_chunk import PilotChunk
from .progress import StageProgress
from .reference_model import AttentionFunction, ReferenceModel, dense_attention
from .resume import PartialResults
from .settings import DEFAULT_K_MIN, CalibrationSettings
from .simulate import ShadowAttention
from .subject import Subject, prepare_subject
from .uniform import UNIFORM_DENSE_LAYERS, uniform_ratios
from .voters import chosen_by_cost, the_same

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
    "StrideChoice",
    "Strides",
    "Subject",
    "calibrate",
    "chosen_by_cost",
    "dense_attention",
    "fisher_ratios",
    "kept_pairs",
    "past_fraction",
    "prepare_subject",
    "scale_to_budget",
    "sparse_pairs",
    "the_same",
    "uniform_ratios",
    "with_ratios",
    "with_strides",
]
