"""What identifies a checkpoint, however its weights are quantized.

A plan is calibrated on a checkpoint, and serves every conversion of it. The norms' weights are the
part that no quantization changes: with the model's geometry they identify the checkpoint. They
are rounded to bfloat16 first, because MLC-LLM's converter stores them so. (A fine-tune that
leaves the norms alone, as low-rank adapters do, keeps the fingerprint; the plan's static scales
then still fit, as its bucket grid allows for.)
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from .model_directory import ModelDirectory, iter_parameters

_GEOMETRY = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_hidden_layers",
    "vocab_size",
    "tie_word_embeddings",
    "position_embedding_base",
    "rope_scaling",
)
"""What of the architecture is the model's own; context and chunk lengths are the user's choice."""


def model_fingerprint(directory: ModelDirectory) -> str:
    """SHA-256 (hex) of the model's geometry and its norms' weights as bfloat16.

    The same for q0f32 and q4f32_1 conversions of one checkpoint, by us or by MLC-LLM.
    Raises `WeightsError` if the weights can't be read.
    """
    geometry = directory.architecture.model_dump(mode="json", include=set(_GEOMETRY))
    digest = hashlib.sha256(json.dumps(geometry, sort_keys=True).encode())
    norms = {name: w for name, w in iter_parameters(directory) if name.endswith("norm.weight")}
    for name in sorted(norms):
        digest.update(name.encode())
        digest.update(_as_bfloat16(norms[name]).tobytes())
    return digest.hexdigest()


def _as_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 rounded half to even to bfloat16 bits; finite values only."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + (0x7FFF + ((bits >> 16) & 1))
    return (rounded >> 16).astype(np.uint16)
