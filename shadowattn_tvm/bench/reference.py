"""What every contender's result is held against before it is timed: the NumPy twins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tir_kernels.reference.attention import paged_prefill
from tir_kernels.reference.shadow_prefill import shadow_paged_prefill
from tir_kernels.spec import AttentionSpec, ShadowSpec

from .inputs import Floats, LayerInputs


class WrongResultError(RuntimeError):
    """A contender computes something else: our mistake, not the user's."""


_TOLERANCE = 1e-3

_Ints = NDArray[np.integer]
_Arguments = tuple[Floats, _Ints, Floats, _Ints, _Ints, _Ints]


def dense_reference(spec: AttentionSpec, inputs: LayerInputs) -> Floats:
    """(m, Hq, D): exact attention to all older keys."""
    return paged_prefill(spec, *_arguments(spec, inputs), causal=False)[0].astype(np.float32)


def shadow_reference(spec: ShadowSpec, layer: int, inputs: LayerInputs) -> Floats:
    """(m, Hq, D): exact attention to the keys that the pilot selects."""
    arguments = _arguments(spec.attention, inputs)
    return shadow_paged_prefill(spec, layer, *arguments, causal=False)[0].astype(np.float32)


def require_close(label: str, got: Floats, wanted: Floats) -> None:
    """Raise `WrongResultError` if a contender computes something else."""
    worst = float(np.abs(got - wanted).max())
    if not worst <= _TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise WrongResultError(f"{label}: its result is off by {worst:.3g}, so it was not timed")


def _arguments(spec: AttentionSpec, inputs: LayerInputs) -> _Arguments:
    num_keys, pages = len(inputs.k), inputs.pages(spec)
    starts = np.array([0, len(inputs.q)], np.int32)
    last = np.array([num_keys - (len(pages) - 1) * spec.page_size], np.int32)
    page_indptr, page_values = np.array([0, len(pages)]), np.arange(len(pages))
    return inputs.q, starts, pages, page_indptr, page_values, last
