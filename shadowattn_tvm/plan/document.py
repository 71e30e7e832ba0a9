"""What a plan says: per-head scales and keep ratios, and everything else the kernels bake in.

Strict and versioned: every field is honoured by the kernels bit for bit, and a combination they
can't run is refused here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tir_kernels.spec import Rest, query_strides

from .head_order import HeadOrder, unit_launches
from .settings import BucketGrid, Pilot, Sharing, StrictDocument
from .stage_costs import StageCosts

SCHEMA_VERSION = 2

PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]


class PlannedModel(StrictDocument):
    """The model a plan belongs to.

    `fingerprint` identifies the checkpoint independently of its weight quantization (see
    `shadowattn_tvm.weights.fingerprint`), so that one plan serves q0f32 and q4f32_1 alike.
    """

    name: str
    fingerprint: str
    num_layers: PositiveInt
    num_q_heads: PositiveInt
    num_kv_heads: PositiveInt
    head_dim: PositiveInt


RequantFactor = Annotated[float, Field(gt=0.0, le=1.0)]
RequantTable = Annotated[
    tuple[Annotated[tuple[RequantFactor, ...], Field(strict=False)], ...], Field(strict=False)
]
"""`[query bucket][key bucket]`, buckets ascending: units of score per unit of INT32 score."""


class HeadPlan(StrictDocument):
    """One query head: mean scales over the corpus (absmax / quantization maximum) of what the pilot
    quantizes, the past fraction it keeps, and how its scores are requantized.

    Of the queries that share a list every `query_stride`-th votes on it, the first included.

    `requant` is None where the pilot's scores stay INT32 (`Pilot.score_bits`). Its factor f stands
    for the static output scale s_o of a bucket pair, f = s_q * s_k / s_o.
    """

    q_scale: PositiveFloat
    k_scale: PositiveFloat
    keep_ratio: Fraction
    requant: RequantTable | None = None
    query_stride: PositiveInt = 1


Decode = Literal["dense", "sparse"]
"""How one token at a time is attended to."""

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
KeyMeans = Annotated[
    tuple[Annotated[tuple[FiniteFloat, ...], Field(strict=False)], ...], Field(strict=False)
]
"""`[KV head][dimension]`."""


class LayerPlan(StrictDocument):
    """One layer. A dense layer computes every head exactly, whatever the keep ratios say.

    `key_means` are what the pilot subtracts from rotated keys (`Pilot.center_keys`), else None.
    """

    dense: bool
    heads: Annotated[tuple[HeadPlan, ...], Field(strict=False)]
    key_means: KeyMeans | None = None


class CorpusDocument(StrictDocument):
    """A text that was read: its name and the SHA-256 (hex) of its UTF-8 bytes."""

    name: str
    sha256: str


class Provenance(StrictDocument):
    """Where a plan comes from, enough to make it again.

    `ratio` is the budget asked for: the past fraction over windows of `window_tokens` prefilled in
    chunks of `prefill_chunk_tokens`, with `k_min` and dense layers inside it.
    """

    method: Literal["uniform", "paper", "ae", "fisher", "ratios"]
    ratio: Fraction
    corpus: Annotated[tuple[CorpusDocument, ...], Field(strict=False)]
    window_tokens: PositiveInt
    num_windows: PositiveInt
    prefill_chunk_tokens: PositiveInt
    created: Annotated[datetime, Field(strict=False)]
    tool_version: str


class Plan(StrictDocument):
    """A calibrated plan. Its units are those who may have lists of their own: query heads, or the
    groups of query heads that share theirs.

    Attributes
    ----------
    layers : one entry a layer, in order.
    k_min : the fewest past positions a sparse head keeps; shorter pasts run dense.
    head_order : per layer, the order in which units take their turn in the pipeline, and who is
        launched together; None = those who keep most come first, one by one. It changes no result.
    stage_costs : what was measured to plan the order; None until measured.
    rest : dropped, as in the paper: a head attends to its list and to nothing else of the past.
        mean: prefill adds one key and value more, the mean of a sample of the past, which counts as
        often as keys are left out.
    decode : sparse keeps an INT8 shadow of K beside the pages of the KV cache, and decodes over the
        newest key and the best of the others, a list for each head, as many as its keep ratio says.
    """

    schema_version: Literal[2] = 2
    model: PlannedModel
    buckets: BucketGrid
    k_min: PositiveInt
    sharing: Sharing = Sharing()
    pilot: Pilot = Pilot()
    layers: Annotated[tuple[LayerPlan, ...], Field(strict=False)]
    head_order: HeadOrder | None = None
    stage_costs: StageCosts | None = None
    rest: Rest = "dropped"
    decode: Decode = "dense"
    provenance: Provenance

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        model = self.model
        if model.num_q_heads % model.num_kv_heads != 0:
            raise ValueError(
                f"expected num_q_heads to be a multiple of num_kv_heads, got "
                f"{model.num_q_heads} and {model.num_kv_heads}"
            )
        if len(self.layers) != model.num_layers:
            raise ValueError(f"expected {model.num_layers} layers, got {len(self.layers)}")
        if self.sharing.pooled and self.pilot.score_bits == 32:
            raise ValueError(
                f"sharing: lists are pooled from requantized scores, expected pilot.score_bits 8 "
                f"or 9, got {self.pilot.score_bits}"
            )
        for index, layer in enumerate(self.layers):
            self._check_layer(f"layers[{index}]", layer)
        if self.head_order is not None:
            self._check_order(self.head_order)
        return self

    def _check_order(self, order: HeadOrder) -> None:
        if not self.sharing.pooled:
            raise ValueError(
                "head_order: only shared lists take turns, expected null unless sharing is on"
            )
        if len(order) != self.model.num_layers:
            raise ValueError(
                f"head_order: expected {self.model.num_layers} layers, got {len(order)}"
            )
        for layer, launches in enumerate(unit_launches(order)):
            units = [unit for launch in launches for unit in launch]
            if sorted(units) != list(range(self.num_units)):
                raise ValueError(
                    f"head_order[{layer}]: expected each of 0..{self.num_units - 1} once, got "
                    f"{units}"
                )

    def _check_layer(self, where: str, layer: LayerPlan) -> None:
        model = self.model
        group = model.num_q_heads // model.num_kv_heads
        if len(layer.heads) != model.num_q_heads:
            raise ValueError(
                f"{where}.heads: expected {model.num_q_heads} heads, got {len(layer.heads)}"
            )
        if self.pilot.center_keys != (layer.key_means is not None):
            raise ValueError(f"{where}.key_means: expected them just if pilot.center_keys is true")
        if layer.key_means is not None and (
            len(layer.key_means) != model.num_kv_heads
            or any(len(means) != model.head_dim for means in layer.key_means)
        ):
            raise ValueError(
                f"{where}.key_means: expected {model.num_kv_heads} x {model.head_dim} numbers"
            )
        for head, plan in enumerate(layer.heads):
            leader = layer.heads[head // group * group]
            if plan.k_scale != leader.k_scale:
                raise ValueError(
                    f"{where}.heads[{head}].k_scale: heads of a GQA group share one K, expected "
                    f"{leader.k_scale}, got {plan.k_scale}"
                )
            if self.sharing.gqa_group and plan.keep_ratio != leader.keep_ratio:
                raise ValueError(
                    f"{where}.heads[{head}].keep_ratio: heads of a GQA group share their lists, "
                    f"expected {leader.keep_ratio}, got {plan.keep_ratio}"
                )
            strides = query_strides(self.sharing.query_block)
            if plan.query_stride not in strides:
                raise ValueError(
                    f"{where}.heads[{head}].query_stride: expected one of "
                    f"{', '.join(map(str, strides))} with sharing.query_block "
                    f"{self.sharing.query_block}, got {plan.query_stride}"
                )
            if self.sharing.gqa_group and plan.query_stride != leader.query_stride:
                raise ValueError(
                    f"{where}.heads[{head}].query_stride: heads of a GQA group share their lists, "
                    f"expected {leader.query_stride}, got {plan.query_stride}"
                )
            self._check_requant(f"{where}.heads[{head}].requant", plan.requant)

    def _check_requant(self, where: str, requant: RequantTable | None) -> None:
        if (self.pilot.score_bits < 32) != (requant is not None):
            raise ValueError(f"{where}: expected a table just if pilot.score_bits is 8 or 9")
        side = self.buckets.per_axis
        if requant is not None and [len(row) for row in requant] != [side] * side:
            raise ValueError(f"{where}: expected {side} x {side} factors, one a bucket pair")

    @property
    def unit_heads(self) -> int:
        """Query heads of a unit."""
        group = self.model.num_q_heads // self.model.num_kv_heads
        return group if self.sharing.gqa_group else 1

    @property
    def num_units(self) -> int:
        """Who may have lists of their own in a layer."""
        return self.model.num_q_heads // self.unit_heads

    @property
    def dense_layers(self) -> tuple[int, ...]:
        """Indices of the layers that run dense."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.dense)

    @property
    def voting_fraction(self) -> float:
        """The part of all queries that vote on the lists of their heads, over all heads that don't
        run dense; 1 where there are none."""
        shares = [
            1 / head.query_stride
            for layer in self.layers
            for head in layer.heads
            if not layer.dense and head.keep_ratio < 1.0
        ]
        return sum(shares) / len(shares) if shares else 1.0

    @property
    def past_fraction(self) -> float:
        """The part of all (query, older key outside its chunk) pairs computed exactly, over all
        layers and heads, dense layers included, for pasts long enough that k_min has no say."""
        kept = sum(
            1.0 if layer.dense else head.keep_ratio for layer in self.layers for head in layer.heads
        )
        return kept / (self.model.num_layers * self.model.num_q_heads)
