"""Calibration: from a model directory and a text to a plan. The only package that uses torch."""

from .reference_model import AttentionFunction, ReferenceModel, dense_attention
from .scales import HeadScales, ProgressCallback, Spread, measure_scales
from .uniform import calibrate_uniform, sparse_keep_ratio

__all__ = [
    "AttentionFunction",
    "HeadScales",
    "ProgressCallback",
    "ReferenceModel",
    "Spread",
    "calibrate_uniform",
    "dense_attention",
    "measure_scales",
    "sparse_keep_ratio",
]
