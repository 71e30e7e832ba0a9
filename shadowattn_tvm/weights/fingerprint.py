"""Which checkpoint a model directory holds, whatever its quantization."""

from __future__ import annotations

import hashlib

from .model_directory import ModelDirectory, iter_parameters

_NORM_SUFFIX = "norm.weight"
_LIMITS = ("context_window_size", "prefill_chunk_size", "max_batch_size")
"""Parts of an architecture that are chosen when compiling, not learned."""


def model_fingerprint(directory: ModelDirectory) -> str:
    """SHA-256 (hex) over the architecture and the normalization weights.

    MLC's 4-bit formats with float32 activations leave those weights in float32, so a plan made on
    q0f32 is recognized on q4f32_1; training a checkpoint further changes them.
    """
    digest = hashlib.sha256()
    digest.update(directory.architecture.model_dump_json(exclude=set(_LIMITS)).encode())
    norms = {
        name: values
        for name, values in iter_parameters(directory)
        if name.endswith(_NORM_SUFFIX)
    }
    assert norms, "a model without normalization layers"
    for name in sorted(norms):
        digest.update(name.encode())
        digest.update(norms[name].astype("<f4").tobytes())
    return digest.hexdigest()
