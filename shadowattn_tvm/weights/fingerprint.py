"""What identifies a checkpoint, however its weights are quantized.

A plan is calibrated on a checkpoint, and serves every conversion of it. The norms' weights are the
part that no quantization changes: with the model's geometry they identify the checkpoint. They
are rounded to bfloat16 first, because MLC-LLM's converter stores them so, and the smallest to what
float16 has of them: a checkpoint in bfloat16 or float16, as published ones are, then reads the same
from every conversion. (Of one in float32, float16 may round a weight the other way. A fine-tune
that leaves the norms alone, as low-rank adapters do, keeps the fingerprint; the plan's static
scales then still fit, as its bucket grid allows for.)
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

    The same for all conversions of one checkpoint, by us or by MLC-LLM.
    Raises `WeightsError` if the weights can't be read.
    """
    geometry = directory.architecture.model_dump(mode="json", include=set(_GEOMETRY))
    digest = hashlib.sha256(json.dumps(geometry, sort_keys=True).encode())
    norms = {name: w for name, w in iter_parameters(directory) if name.endswith("norm.weight")}
    for name in sorted(norms):
        digest.update(name.encode())
        digest.update(_as_bfloat16(norms[name]).tobytes())
    return digest.hexdigest()


def _as_bfloat16(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    """float32 or float16 rounded half to even to bfloat16 bits, what lies below float16's normal
    numbers to float16 first; finite values only."""
    wide = np.array(values, dtype=np.float32)
    small = np.abs(wide) < np.finfo(np.float16).smallest_normal
    wide[small] = wide[small].astype(np.float16)
    bits = wide.view(np.uint32)
    rounded = bits + (0x7FFF + ((bits >> 16) & 1))
    return (rounded >> 16).astype(np.uint16)
