"""What every contender's result is held against before it is timed: the NumPy twins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tir_kernels.reference.attention import paged_prefill
from tir_kernels.reference.selective_prefill import Scoring, selective_paged_prefill
from tir_kernels.reference.shadow_prefill import shadow_paged_prefill
from tir_kernels.reference.static_int8 import static_int8_paged_prefill
from tir_kernels.spec import AttentionSpec, ShadowSpec, StaticInt8Spec

from .inputs import Floats, LayerInputs


class WrongResultError(RuntimeError):
    """A contender computes something else: our mistake, not the user's."""


_TOLERANCE = 1e-3

_Ints = NDArray[np.integer]
_Arguments = tuple[Floats, _Ints, Floats, _Ints, _Ints, _Ints]


@dataclass(frozen=True)
class Expected:
    """A reference's result.

    Attributes
    ----------
    output : (m, Hq, D).
    decided : (m, Hq), false where another rounding of float32 may select or round otherwise; such
        rows aren't compared. None = all rows are.
    """

    output: Floats
    decided: NDArray[np.bool_] | None = None


def dense_reference(spec: AttentionSpec, inputs: LayerInputs) -> Expected:
    """Exact attention to all older keys."""
    output, _ = paged_prefill(spec, *_arguments(spec, inputs), causal=False)
    return Expected(output.astype(np.float32))


def shadow_reference(spec: ShadowSpec, layer: int, inputs: LayerInputs) -> Expected:
    """Exact attention to the keys that the pilot selects, by integers."""
    arguments = _arguments(spec.attention, inputs)
    output, _ = shadow_paged_prefill(spec, layer, *arguments, causal=False)
    return Expected(output.astype(np.float32))


def selective_reference(
    spec: ShadowSpec, scoring: Scoring, layer: int, inputs: LayerInputs
) -> Expected:
    """Exact attention to the keys that float scores select."""
    arguments = _arguments(spec.attention, inputs)
    output, _, decided = selective_paged_prefill(spec, scoring, layer, *arguments, causal=False)
    return Expected(output.astype(np.float32), decided)


def static_int8_reference(spec: StaticInt8Spec, layer: int, inputs: LayerInputs) -> Expected:
    """The whole attention in INT8."""
    arguments = _arguments(spec.attention, inputs)
    output, _, decided = static_int8_paged_prefill(spec, layer, *arguments, causal=False)
    return Expected(output, decided)


def require_close(label: str, got: Floats, wanted: Expected) -> None:
    """Raise `WrongResultError` if a contender computes something else, or nothing that can be
    told."""
    decided = np.ones(got.shape[:2], np.bool_) if wanted.decided is None else wanted.decided
    if not decided.any():
        raise WrongResultError(
            f"{label}: every row hangs on rounding, so it was neither checked nor timed"
        )
    difference = np.abs(got - wanted.output)[decided]
    worst = float(difference.max())
    if not worst <= _TOLERANCE * max(1.0, float(np.abs(wanted.output).max())):
        raise WrongResultError(f"{label}: its result is off by {worst:.3g}, so it was not timed")


def _arguments(spec: AttentionSpec, inputs: LayerInputs) -> _Arguments:
    num_keys, pages = len(inputs.k), inputs.pages(spec)
    starts = np.array([0, len(inputs.q)], np.int32)
    last = np.array([num_keys - (len(pages) - 1) * spec.page_size], np.int32)
    page_indptr, page_values = np.array([0, len(pages)]), np.arange(len(pages))
    return inputs.q, starts, pages, page_indptr, page_values, last
