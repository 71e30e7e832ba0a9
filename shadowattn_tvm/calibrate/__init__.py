"""Calibration: from a model directory and a text to a plan. The only package that uses torch."""

from .corpus import Corpus, Windows, built_in_corpus, read_corpus, sample_windows
from .reference_model import AttentionFunction, ReferenceModel, dense_attention
from .scales import HeadScales, ProgressCallback, Spread, measure_scales
from .uniform import calibrate_uniform, sparse_keep_ratio

__all__ = [
    "AttentionFunction",
    "Corpus",
    "HeadScales",
    "ProgressCallback",
    "ReferenceModel",
    "Spread",
    "Windows",
    "built_in_corpus",
    "calibrate_uniform",
    "dense_attention",
    "measure_scales",
    "read_corpus",
    "sample_windows",
    "sparse_keep_ratio",
]
