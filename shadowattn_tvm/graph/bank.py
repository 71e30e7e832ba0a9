"""Which graphs a plan takes: one for each pair of buckets, stride, number of fused units and size.

Source: "Dynamic Sparse Attention on Mobile SoCs", scale buckets: each holds static graphs for
several numbers of fused heads. Scales here are each head's own, so a bucket is a pair of places in
every head's grid, and its graphs hold the constants of all heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from tir_kernels.constants import RATIO_ONE
from tir_kernels.hexagon.graph_spec import PilotGraphSpec, SelectionSpec
from tir_kernels.hexagon.hvx import WORDS
from tir_kernels.hexagon.score_tile import QUERIES
from tir_kernels.hexagon.static_scales import Scales
from tir_kernels.pilot.pooling import pooling_step
from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.pilot.requantize import requantizer
from tir_kernels.spec import ShadowSpec, keep_count

from ..errors import ConfigError


@dataclass(frozen=True)
class GraphSizes:
    """Sizes to make graphs of.

    Attributes
    ----------
    units : heads, or GQA groups that share lists, of one launch.
    queries : rows of each head.
    keys : each a multiple of 128, ascending.
    """

    units: tuple[int, ...]
    queries: int
    keys: tuple[int, ...]


@dataclass(frozen=True)
class PilotGraph:
    """One graph.

    Attributes
    ----------
    q_bucket, k_bucket : places in the grids of scales, counted from the smallest; None where scores
        stay INT32, which takes no scales.
    spec : its shapes.
    scales : of every head, layer by layer; empty without requantization.
    keep_ratios : likewise, in units of 1/65536; empty where the graph selects nothing.
    """

    q_bucket: int | None
    k_bucket: int | None
    spec: PilotGraphSpec
    scales: tuple[Scales, ...]
    keep_ratios: tuple[int, ...] = ()

    @property
    def symbol(self) -> str:
        """Its C function."""
        spec = self.spec
        bucket = "" if self.q_bucket is None else f"q{self.q_bucket}k{self.k_bucket}_"
        stride = "" if spec.query_stride == 1 else f"_s{spec.query_stride}"
        shape = f"u{spec.units}x{spec.heads}_m{spec.queries}_n{spec.keys}"
        return f"shadowattn_pilot_{bucket}{shape}{stride}"


def pilot_graphs(
    shadow: ShadowSpec,
    sizes: GraphSizes,
    *,
    context_tokens: int,
    chunk_tokens: int,
    select: bool = False,
) -> tuple[PilotGraph, ...]:
    """All graphs of a plan, by buckets, then strides, then units, then keys.

    Sizes are left out that are larger than it takes to hold `context_tokens` keys, those of
    `chunk_tokens` rows that vote and a layer's units. Where the heads of a GQA group share lists
    they may be in different buckets, and then go one by one: so there are graphs of a unit with one
    head besides. With `select` graphs end in lists, but those don't: their votes have yet to be
    added up.

    Raises `ConfigError` if no graph holds the context.
    """
    pilot, geometry = shadow.pilot, shadow.attention
    if sizes.keys[-1] < context_tokens:
        raise ConfigError(
            f"graphs hold {sizes.keys[-1]} keys at most, but the context has {context_tokens}; "
            f"compile with --overrides context_window_size={sizes.keys[-1]}"
        )
    largest = next(n for n in sizes.keys if n >= context_tokens)
    keys = [n for n in sizes.keys if n <= largest]
    group = geometry.group_size if pilot.share_group else 1
    units = sorted({min(u, shadow.num_list_owners) for u in sizes.units})
    shapes = [(u, group) for u in units] + ([(1, 1)] if group > 1 else [])
    buckets: list[tuple[int | None, int | None]] = [(None, None)]
    if pilot.requantize:
        side = range(shadow.buckets_per_axis)
        buckets = list(product(side, side))
    graphs = tuple(
        PilotGraph(
            q_bucket,
            k_bucket,
            PilotGraphSpec(u, heads, rows, n, geometry.head_dim, pilot, stride),
            ()
            if q_bucket is None or k_bucket is None
            else bucket_table(shadow, q_bucket, k_bucket),
        )
        for q_bucket, k_bucket in buckets
        for stride, rows in rows_by_stride(shadow, sizes, chunk_tokens).items()
        for u, heads in shapes
        for n in keys
    )
    return tuple(
        selecting(graph, shadow) if select and graph.spec.heads == group else graph
        for graph in graphs
    )


def selecting(graph: PilotGraph, shadow: ShadowSpec) -> PilotGraph:
    """A graph that ends in lists. They have room for what the plan's sparse heads keep; heads that
    run dense have no pilot to ask."""
    ratios = tuple(head.keep_ratio_q16 for layer in shadow.heads for head in layer)
    keys = graph.spec.keys
    kept = max(
        (keep_count(keys, ratio, shadow.k_min) for ratio in ratios if ratio < RATIO_ONE),
        default=keys,
    )
    selection = SelectionSpec(max(WORDS, WORDS * -(-kept // WORDS)), shadow.k_min)
    return replace(graph, spec=replace(graph.spec, selection=selection), keep_ratios=ratios)


def rows_by_stride(shadow: ShadowSpec, sizes: GraphSizes, chunk_tokens: int) -> dict[int, int]:
    """The strides of the plan's sparse heads, ascending, and the rows of their graphs: those of a
    chunk that vote, of whole lists."""
    strides = {h.query_stride for row in shadow.heads for h in row if h.keep_ratio_q16 < RATIO_ONE}
    rows = {}
    for stride in sorted(strides or {1}):
        multiple = max(QUERIES, shadow.pilot.query_block // stride)
        wanted = min(sizes.queries, -(-chunk_tokens // stride))
        rows[stride] = multiple * -(-wanted // multiple)
    return rows


def bucket_table(shadow: ShadowSpec, q_bucket: int, k_bucket: int) -> tuple[Scales, ...]:
    """Every head's constants in a pair of buckets, layer by layer."""
    grid = (shadow.bucket_sigma, shadow.buckets_per_axis)
    table = []
    for layer in shadow.heads:
        for head in layer:
            assert head.requant is not None
            factor = head.requant[q_bucket][k_bucket]
            q_scale = bucket_scales(head.q_scale, *grid)[q_bucket]
            k_scale = bucket_scales(head.k_scale, *grid)[k_bucket]
            fixed = requantizer(factor)
            step = pooling_step(shadow.pilot_sm_scale, q_scale, k_scale, factor)
            table.append((fixed.multiplier, fixed.shift, step))
    return tuple(table)
