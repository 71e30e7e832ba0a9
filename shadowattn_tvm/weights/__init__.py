"""Weights: checkpoints in, model directories out, parameters ready for the runtime."""

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
    "ModelDirectory",
    "ParameterInfo",
    "model_fingerprint",
    "is_model_directory",
    "iter_parameters",
    "load_parameters",
    "open_model_directory",
    "parameter_layout",
]
