"""Frozen kernel specifications: shapes, dtypes and layouts, validated once, at the edge.

Contents
- `AttentionSpec`: the attention geometry every attention kernel is built for.
- `PilotSpec`: how the estimate is computed.
- `ShadowSpec`: the per-layer, per-head parameters of a plan, as the kernels see them.
- `StaticInt8Spec`: the static scales of a whole attention in INT8.
- `LinearSpec`: one linear layer, plain or group-quantized.
- `query_strides`: who may vote on a shared list.
- `keep_count`: how many past positions a head attends to exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Literal

from .constants import (
    MAX_SHARING_ROWS,
    MIN_VOTERS,
    PAGE_SIZE_TOKENS,
    QUANT_GROUP,
    QUERY_BLOCKS,
    RATIO_ONE,
)


class SpecError(ValueError):
    """A kernel was asked for with shapes or parameters it can't have."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SpecError(message)


StorageDtype = Literal["float32", "float16"]

Rest = Literal["dropped", "mean"]
"""What prefill does about the keys that are on no list: see `ShadowSpec.rest`."""

_ELEMENT_BYTES: dict[StorageDtype, int] = {"float32": 4, "float16": 2}


@dataclass(frozen=True)
class AttentionSpec:
    """The geometry of one model's attention.

    Attributes
    ----------
    num_q_heads, num_kv_heads : query and KV heads; the former a multiple of the latter (GQA).
    head_dim : width of one head; a multiple of 16.
    sm_scale : the factor on q.k before the softmax, usually head_dim ** -0.5. A compile-time
        constant: the runtime's `sm_scale` argument carries `layer_id + sm_scale` (see `layer_id`
        in `shadow_prefill`), so no kernel may use that argument as the scale.
    dtype : storage of q, k, v, the pages and the output; arithmetic and lse are float32.
    shadow_rows : head rows of the pages beyond those of the KV heads, in either plane; they hold
        the INT8 shadow of K that sparse decode reads, and prefill where it can (see
        `pilot.shadow_rows`). 0 = none.
    """

    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    sm_scale: float
    dtype: StorageDtype = "float32"
    page_size: int = PAGE_SIZE_TOKENS
    shadow_rows: int = 0

    def __post_init__(self) -> None:
        _require(
            self.num_kv_heads > 0 and self.num_q_heads % self.num_kv_heads == 0,
            f"expected query heads to be a multiple of KV heads, got {self.num_q_heads} query "
            f"and {self.num_kv_heads} KV heads",
        )
        _require(
            self.head_dim > 0 and self.head_dim % 16 == 0,
            f"expected a head dim that is a multiple of 16, got {self.head_dim}",
        )
        _require(
            0.0 < self.sm_scale < 1.0,
            f"expected 0 < sm_scale < 1 (it shares its argument with the layer id), "
            f"got {self.sm_scale}",
        )
        _require(
            self.dtype in _ELEMENT_BYTES,
            f"expected a dtype of {', '.join(_ELEMENT_BYTES)}, got {self.dtype}",
        )
        _require(self.shadow_rows >= 0, f"expected 0 shadow rows or more, got {self.shadow_rows}")

    @property
    def element_bytes(self) -> int:
        """Bytes of a stored element."""
        return _ELEMENT_BYTES[self.dtype]

    @property
    def stored_heads(self) -> int:
        """Head rows of a page's plane: those of the KV heads, then those of their shadow."""
        return self.num_kv_heads + self.shadow_rows

    @property
    def group_size(self) -> int:
        """Query heads that share one KV head."""
        return self.num_q_heads // self.num_kv_heads


@dataclass(frozen=True)
class HeadParameters:
    """What the plan says of one query head of one layer.

    Attributes
    ----------
    q_scale, k_scale : lambda_Q and lambda_K, the mean scales (absmax / 127, or / 7 with 4 bits)
        over the calibration corpus (paper, offline stage); the centre of the bucket grid. `k_scale`
        is the same for all heads of a GQA group: they share one K.
    keep_ratio_q16 : the fraction of past positions attended to exactly, in units of 1/65536.
    requant : `[query bucket][key bucket]`, units of score per unit of INT32 score; None where
        scores stay INT32.
    query_stride : of the queries that share a list every so many-th votes on it, the first one
        included; 1 = all do. The same for all heads of a GQA group that share their lists.
    """

    q_scale: float
    k_scale: float
    keep_ratio_q16: int
    requant: tuple[tuple[float, ...], ...] | None = None
    query_stride: int = 1


@dataclass(frozen=True)
class PilotSpec:
    """How the estimate is computed; see `reference.pilot` for its meaning to the bit.

    Attributes
    ----------
    bits : of quantized queries and keys.
    hadamard_rotation : rotate both before quantizing.
    score_bits : fewer than 32 requantize scores before they are ranked or pooled.
    share_group : the query heads of a KV head share their lists.
    query_block : consecutive queries that share a list, counted from a sequence's first new one.
    """

    bits: Literal[4, 6, 7, 8] = 8
    hadamard_rotation: bool = False
    score_bits: Literal[8, 9, 32] = 32
    share_group: bool = False
    query_block: int = 1

    def __post_init__(self) -> None:
        _require(
            self.query_block in QUERY_BLOCKS,
            f"expected a query block of {', '.join(map(str, QUERY_BLOCKS))}, "
            f"got {self.query_block}",
        )
        _require(
            self.requantize or not self.pooled,
            f"pooling takes requantized scores: expected 8 or 9 score bits, got {self.score_bits}",
        )

    @property
    def requantize(self) -> bool:
        """Whether INT32 scores become smaller ones."""
        return self.score_bits < 32

    @property
    def score_max(self) -> int:
        """The largest requantized magnitude."""
        return (1 << (self.score_bits - 1)) - 1

    @property
    def row_dtype(self) -> Literal["int8", "int32"]:
        """How the scores of queries with lists of their own are kept until they are ranked."""
        return "int8" if self.score_bits == 8 else "int32"

    @property
    def pooled(self) -> bool:
        """Whether several rows of scores make one list."""
        return self.share_group or self.query_block > 1

    @property
    def quant_max(self) -> int:
        """The largest quantized magnitude: symmetric, so that negation is exact."""
        return (1 << (self.bits - 1)) - 1


def rotation_block(head_dim: int) -> int:
    """Elements that the pilot rotates together: the largest power of two that divides head_dim."""
    return head_dim & -head_dim


@dataclass(frozen=True)
class ShadowSpec:
    """The plan's parameters for all layers, as the shadowAttn prefill kernel bakes them in.

    Attributes
    ----------
    attention : the geometry.
    heads : `[layer][query head]`.
    bucket_sigma : step of the bucket grid: scales {lambda * sigma ** i}.
    k_min : the fewest past positions a sparse head keeps; shorter contexts run dense.
    buckets_per_axis : scales on offer for Q, and as many for K; odd.
    key_means : `[layer][KV head][dim]`, subtracted from keys before all else; None = nothing is.
    launches : `[layer][launch][position]`, the heads, or the GQA groups that share lists, in the
        order of their turn; those of a launch go to the NPU together. None = by number, one by
        one. It changes no result.
    rest : of a past of n keys a sparse head's list has k. Dropped: the softmax is over these (the
        paper's setting). Mean: and over n - k times the mean of a sample of the past
        (`rest_sample`), whose value is their mean value. Prefill's alone; decode drops the rest.
    """

    attention: AttentionSpec
    heads: tuple[tuple[HeadParameters, ...], ...]
    bucket_sigma: float
    k_min: int
    buckets_per_axis: int = 3
    pilot: PilotSpec = PilotSpec()
    key_means: tuple[tuple[tuple[float, ...], ...], ...] | None = None
    launches: tuple[tuple[tuple[int, ...], ...], ...] | None = None
    rest: Rest = "dropped"

    def __post_init__(self) -> None:
        hq = self.attention.num_q_heads
        _require(len(self.heads) > 0, "expected parameters for at least one layer, got none")
        _require(
            0.0 < self.bucket_sigma < 1.0,
            f"expected 0 < bucket_sigma < 1, got {self.bucket_sigma}",
        )
        _require(
            self.buckets_per_axis > 0 and self.buckets_per_axis % 2 == 1,
            f"expected an odd number of buckets per axis, got {self.buckets_per_axis}",
        )
        _require(self.k_min >= 1, f"expected k_min >= 1, got {self.k_min}")
        for layer, heads in enumerate(self.heads):
            _require(
                len(heads) == hq, f"layer {layer}: expected {hq} query heads, got {len(heads)}"
            )
            for head, p in enumerate(heads):
                self._check_head(f"layer {layer} head {head}", heads, head, p)
        _require(
            self.list_rows <= MAX_SHARING_ROWS,
            f"expected at most {MAX_SHARING_ROWS} rows to share a list, got {self.list_rows}",
        )
        if self.key_means is not None:
            shape = [[len(means) for means in layer] for layer in self.key_means]
            expected = [[self.attention.head_dim] * self.attention.num_kv_heads] * self.num_layers
            _require(shape == expected, "key_means: expected [layer][KV head][head_dim] numbers")
        if self.launches is not None:
            everyone = list(range(self.num_list_owners))
            owners = [sorted(chain.from_iterable(layer)) for layer in self.launches]
            _require(
                owners == [everyone] * self.num_layers,
                f"launches: expected each of 0..{everyone[-1]} once in each of {self.num_layers} "
                f"layers",
            )
            _require(
                all(launch for layer in self.launches for launch in layer),
                "launches: expected none without heads",
            )

    @property
    def pilot_sm_scale(self) -> float:
        """The factor on q.k as the pilot sees them, before the softmax: its rotation is not
        normalized, so the products of a block of n rotated elements are n times those of plain
        ones."""
        gain = rotation_block(self.attention.head_dim) if self.pilot.hadamard_rotation else 1
        return self.attention.sm_scale / gain

    @property
    def list_rows(self) -> int:
        """Rows of a whole list: queries of a block, times query heads that share it."""
        return self.pilot.query_block * (self.attention.group_size if self.pilot.share_group else 1)

    @property
    def num_list_owners(self) -> int:
        """Who may have lists of their own: query heads, or GQA groups that share theirs."""
        geometry = self.attention
        return geometry.num_kv_heads if self.pilot.share_group else geometry.num_q_heads

    def owner_launches(self, layer: int) -> tuple[tuple[int, ...], ...]:
        """The owners of a layer's lists in the order of their turn, by launch."""
        if self.launches is None:
            return tuple((owner,) for owner in range(self.num_list_owners))
        return self.launches[layer]

    def owner_order(self, layer: int) -> tuple[int, ...]:
        """The owners of a layer's lists in the order of their turn."""
        return tuple(chain.from_iterable(self.owner_launches(layer)))

    def _check_head(
        self, where: str, heads: tuple[HeadParameters, ...], head: int, p: HeadParameters
    ) -> None:
        leader = heads[head // self.attention.group_size * self.attention.group_size]
        _require(
            p.q_scale > 0 and p.k_scale > 0,
            f"{where}: expected positive scales, got q {p.q_scale}, k {p.k_scale}",
        )
        _require(
            0 <= p.keep_ratio_q16 <= RATIO_ONE,
            f"{where}: expected a keep ratio in 0..{RATIO_ONE}, got {p.keep_ratio_q16}",
        )
        _require(
            p.k_scale == leader.k_scale,
            f"{where}: expected the K scale of its GQA group, got {p.k_scale}",
        )
        _require(
            not self.pilot.share_group or p.keep_ratio_q16 == leader.keep_ratio_q16,
            f"{where}: expected the keep ratio of its GQA group, whose lists it shares, "
            f"got {p.keep_ratio_q16}",
        )
        _require(
            p.query_stride in query_strides(self.pilot.query_block),
            f"{where}: expected a query stride of "
            f"{', '.join(map(str, query_strides(self.pilot.query_block)))} for blocks of "
            f"{self.pilot.query_block} queries, got {p.query_stride}",
        )
        _require(
            not self.pilot.share_group or p.query_stride == leader.query_stride,
            f"{where}: expected the query stride of its GQA group, whose lists it shares, "
            f"got {p.query_stride}",
        )
        side = self.buckets_per_axis
        shape = None if p.requant is None else [len(row) for row in p.requant]
        _require(
            shape == ([side] * side if self.pilot.requantize else None),
            f"{where}: expected {f'{side} x {side}' if self.pilot.requantize else 'no'} "
            f"requantization factors, got rows of {shape}",
        )

    @property
    def num_layers(self) -> int:
        return len(self.heads)

    @property
    def samples_queries(self) -> bool:
        """Whether any head's lists are voted on by fewer than all of their queries."""
        return any(head.query_stride > 1 for layer in self.heads for head in layer)

    def block_voters(self, layer: int, head: int) -> int:
        """Queries of a whole block that vote on a head's list."""
        return self.pilot.query_block // self.heads[layer][head].query_stride


def query_strides(query_block: int) -> tuple[int, ...]:
    """The strides that a head may have where `query_block` queries share a list, ascending."""
    strides = (1 << i for i in range(query_block.bit_length()))
    return tuple(s for s in strides if s == 1 or query_block // s >= MIN_VOTERS)


@dataclass(frozen=True)
class StaticInt8Spec:
    """NPU-Full's parameters: one static scale a layer for each tensor.

    Attributes
    ----------
    attention : the geometry.
    q_scales, k_scales, v_scales : `[layer]`, real units per unit of INT8.
    """

    attention: AttentionSpec
    q_scales: tuple[float, ...]
    k_scales: tuple[float, ...]
    v_scales: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = [len(scales) for scales in (self.q_scales, self.k_scales, self.v_scales)]
        _require(
            lengths == [self.num_layers] * 3 and self.num_layers > 0,
            f"expected as many scales of Q, K and V, one a layer, got {lengths}",
        )
        _require(
            all(scale > 0 for scale in (*self.q_scales, *self.k_scales, *self.v_scales)),
            "expected positive scales",
        )

    @property
    def num_layers(self) -> int:
        return len(self.q_scales)

    def score_scale(self, layer: int) -> float:
        """What a unit of the INT32 score is worth before the softmax."""
        return self.q_scales[layer] * self.k_scales[layer] * self.attention.sm_scale


@dataclass(frozen=True)
class LinearSpec:
    """One linear layer `y = x @ w.T`, weights stored row-major as [out_features, in_features].

    With `quantization == "q4f32_1"` the weight is MLC's pair: `q_weight`
    (out_features, in_features / 8) uint32 and `q_scale` (out_features, in_features / 32) float32.
    With "q0f16" and "q4f16_1" the weight, or the scales, and x and y are float16.

    Attributes
    ----------
    float32_output : y is float32 in any case, as logits are.
    """

    out_features: int
    in_features: int
    quantization: Literal["q0f32", "q4f32_1", "q0f16", "q4f16_1"] = "q0f32"
    float32_output: bool = False

    def __post_init__(self) -> None:
        _require(
            self.out_features > 0 and self.in_features > 0,
            f"expected positive sizes, got [{self.out_features}, {self.in_features}]",
        )
        _require(
            not self.quantized or self.in_features % QUANT_GROUP == 0,
            f"expected in_features to be a multiple of the quantization group {QUANT_GROUP}, "
            f"got {self.in_features}",
        )

    @property
    def quantized(self) -> bool:
        """Whether the weight is in 4 bits."""
        return self.quantization in ("q4f32_1", "q4f16_1")

    @property
    def dtype(self) -> StorageDtype:
        """Of x and of the weight or its scales."""
        return "float16" if self.quantization in ("q0f16", "q4f16_1") else "float32"

    @property
    def output_dtype(self) -> StorageDtype:
        """Of y."""
        return "float32" if self.float32_output else self.dtype


def keep_count(num_past: int, keep_ratio_q16: int, k_min: int) -> int:
    """How many of `num_past` positions a head attends to exactly: integers only, so that every
    target and every report agrees. `num_past` itself means the head runs dense.

    `min(num_past, max(k_min, ceil(num_past * ratio)))`
    """
    wanted = -(-num_past * keep_ratio_q16 // RATIO_ONE)
    return min(num_past, max(k_min, wanted))
