"""One context and chunk: the slot's calls and what they should give, each made once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from tir_kernels.constants import INT8_QMAX
from tir_kernels.reference.selective_prefill import BLOCK_MEANS, EXACT
from tir_kernels.spec import ShadowSpec, StaticInt8Spec, keep_count

from .document import BudgetedContender
from .inputs import Floats, LayerInputs, SlotCall
from .reference import (
    Expected,
    dense_reference,
    selective_reference,
    shadow_reference,
    static_int8_reference,
)
from .rig import Rig

_COLD_CALLS = 8
"""Each has buffers of its own: together more than the caches that a core may count on."""


class Workload:
    """What all contenders are given, and held against.

    Parameters
    ----------
    spec : the plan's parameters.
    inputs : of every layer, or of one that stands for all.
    rig : where its tensors are.
    """

    def __init__(self, rig: Rig, spec: ShadowSpec, inputs: Sequence[LayerInputs]) -> None:
        self.rig = rig
        self.spec = spec
        self.inputs = inputs
        self.calls = [
            SlotCall(spec.attention, inputs[layer % len(inputs)], layer, rig.device)
            for layer in range(spec.num_layers)
        ]
        self._expected: dict[BudgetedContender, Expected] = {}

    @property
    def few_calls(self) -> Sequence[SlotCall]:
        """For contenders that treat all layers alike: as many as have inputs of their own, or as
        make caches as cold as all layers would."""
        return self.calls[: max(len(self.inputs), _COLD_CALLS)]

    @cached_property
    def kept(self) -> list[float]:
        """The part of the past that each layer keeps."""
        num_past = len(self.inputs[0].k)
        return [
            float(
                np.mean(
                    [keep_count(num_past, head.keep_ratio_q16, self.spec.k_min) for head in heads]
                )
            )
            / num_past
            for heads in self.spec.heads
        ]

    @property
    def sparsest(self) -> int:
        """The layer that says most of a selection."""
        return int(np.argmin(self.kept))

    @cached_property
    def dense(self) -> Expected:
        """Of the first call."""
        return dense_reference(self.spec.attention, self.inputs[0])

    @cached_property
    def static_int8_spec(self) -> StaticInt8Spec:
        """Scales for NPU-Full: the largest magnitudes of the inputs themselves, layer by layer."""

        def scales(tensors: Iterable[Floats]) -> tuple[float, ...]:
            return tuple(float(np.abs(tensor).max()) / INT8_QMAX for tensor in tensors)

        inputs = [call.inputs for call in self.few_calls]
        return StaticInt8Spec(
            self.spec.attention,
            q_scales=scales(each.q for each in inputs),
            k_scales=scales(each.k for each in inputs),
            v_scales=scales(each.v for each in inputs),
        )

    @cached_property
    def static_int8(self) -> Expected:
        """Of the first call."""
        return static_int8_reference(self.static_int8_spec, 0, self.inputs[0])

    def budgeted(self, name: BudgetedContender) -> Expected:
        """Of the sparsest layer's call."""
        if name not in self._expected:
            self._expected[name] = self._compute(name)
        return self._expected[name]

    def _compute(self, name: BudgetedContender) -> Expected:
        layer = self.sparsest
        inputs = self.calls[layer].inputs
        if name == "shadow":
            return shadow_reference(self.spec, layer, inputs)
        scoring = {"cg_sparse": EXACT, "cg_block_sparse": BLOCK_MEANS}[name]
        return selective_reference(self.spec, scoring, layer, inputs)
