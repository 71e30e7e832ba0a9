"""Weights: checkpoints in, model directories out, parameters ready for the runtime."""

from .any_directory import open_any_directory
from .convert import DEFAULT_PREFILL_CHUNK_TOKENS, convert_weight
from .fetch import fetch
from .fingerprint import model_fingerprint
from .layout import ParameterInfo, parameter_layout
from .model_directory import (
    ModelDirectory,
    is_model_directory,
    iter_parameters,
    load_parameters,
    open_model_directory,
)

__all__ = [
    "DEFAULT_PREFILL_CHUNK_TOKENS",
    "ModelDirectory",
    "ParameterInfo",
    "convert_weight",
    "fetch",
    "is_model_directory",
    "iter_parameters",
    "load_parameters",
    "model_fingerprint",
    "open_any_directory",
    "open_model_directory",
    "parameter_layout",
]
