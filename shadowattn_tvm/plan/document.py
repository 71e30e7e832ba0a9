"""What a plan says: per-head scales and keep ratios, and everything else the kernels bake in.

Strict and versioned. A field whose type is a single literal is a setting the kernels don't offer
yet: the document already has its place, and a file that asks for another value is refused
rather than silently run differently.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION = 1

PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PlannedModel(_Document):
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


class HeadPlan(_Document):
    """One query head: mean scales over the corpus (absmax / 127) and the past fraction it keeps."""

    q_scale: PositiveFloat
    k_scale: PositiveFloat
    keep_ratio: Fraction


class LayerPlan(_Document):
    """One layer. A dense layer computes every head exactly, whatever the keep ratios say."""

    dense: bool
    heads: Annotated[tuple[HeadPlan, ...], Field(strict=False)]


class BucketGrid(_Document):
    """Static scales on offer at run time: {lambda * sigma, lambda, lambda / sigma} for Q and for
    K, nine buckets a head (paper, scale buckets)."""

    sigma: Annotated[float, Field(gt=0.0, lt=1.0)]


class Sharing(_Document):
    """Who shares one list of selected positions: per query and per head, the paper's setting."""

    gqa_group: Literal[False] = False
    query_block: Literal[1] = 1


class Pilot(_Document):
    """How the estimate is computed: plain symmetric INT8 with INT32 scores."""

    bits: Literal[8] = 8
    center_keys: Literal[False] = False
    hadamard_rotation: Literal[False] = False
    output_scales: None = None


class Provenance(_Document):
    """Where a plan comes from, enough to make it again."""

    method: Literal["uniform"]
    ratio: Fraction
    corpus: str
    corpus_sha256: str
    window_tokens: PositiveInt
    num_windows: PositiveInt
    prefill_chunk_tokens: PositiveInt
    created: Annotated[datetime, Field(strict=False)]
    tool_version: str


class Plan(_Document):
    """A calibrated plan.

    Attributes
    ----------
    layers : one entry a layer, in order.
    k_min : the fewest past positions a sparse head keeps; shorter pasts run dense.
    head_order : per layer, the order in which the pipeline launches heads; None until planned.
    stage_costs : measured costs the order was planned with; None until measured.
    """

    schema_version: Literal[1] = 1
    model: PlannedModel
    buckets: BucketGrid
    k_min: PositiveInt
    sharing: Sharing = Sharing()
    pilot: Pilot = Pilot()
    layers: Annotated[tuple[LayerPlan, ...], Field(strict=False)]
    head_order: None = None
    stage_costs: None = None
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
        group = model.num_q_heads // model.num_kv_heads
        for index, layer in enumerate(self.layers):
            if len(layer.heads) != model.num_q_heads:
                raise ValueError(
                    f"layers[{index}].heads: expected {model.num_q_heads} heads, "
                    f"got {len(layer.heads)}"
                )
            for head, plan in enumerate(layer.heads):
                if plan.k_scale != layer.heads[head // group * group].k_scale:
                    raise ValueError(
                        f"layers[{index}].heads[{head}].k_scale: heads of a GQA group share one "
                        f"K, expected {layer.heads[head // group * group].k_scale}, "
                        f"got {plan.k_scale}"
                    )
        return self

    @property
    def dense_layers(self) -> tuple[int, ...]:
        """Indices of the layers that run dense."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.dense)

    @property
    def past_fraction(self) -> float:
        """The part of all (query, older key outside its chunk) pairs computed exactly, over all
        layers and heads, dense layers included, for pasts long enough that k_min has no say."""
        kept = sum(
            1.0 if layer.dense else head.keep_ratio for layer in self.layers for head in layer.heads
        )
        return kept / (self.model.num_layers * self.model.num_q_heads)
