"""The two stages of one shared list: the pilot's votes and their selection, then exact attention.

The rows of a list are those of a block of queries, of one head or of a GQA group. What passes from
one stage to the other is the list, so that the stages may run on different machines: a loop over
lists says which of its statements are which stage (`PIPELINE`, `STAGE`), and the pass
`PipelineHeads` takes it apart. Selection goes with the pilot, which is the shorter stage and has
the importances in its cache.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import value_row_offset
from ..attention.tiles import list_tile
from ..features import CpuFeatures
from ..pilot.key_shadow import KeyShadow
from ..pilot.plan_table import PlanTable
from ..pilot.score_rows import ScoreRows, padded_keys
from ..pilot.top_k import RowSelector, index_slack
from ..pilot.votes import votes_of_rows
from ..simd.vector import Expr
from ..spec import ShadowSpec
from .list_tile import ListTile
from .rest_mean import RestMean

PIPELINE = "shadowattn.pipeline"
"""Annotation of a parallel loop whose body has stages: items pass them in the loop's order."""

STAGE = "shadowattn.stage"
"""Attribute of the statements of one stage; its value is one of the following."""

PILOT, ATTEND = "pilot", "attend"
"""What the NPU does, or who stands in for it; what the CPU does with the lists."""


@T.meta_class
class PilotStage:
    """Votes of a list's rows, made inside the stage.

    Parameters
    ----------
    importance : (any, padded keys) int32; `slot` is the list's row.
    """

    def __init__(
        self,
        spec: ShadowSpec,
        features: CpuFeatures,
        keys: KeyShadow,
        plan: PlanTable,
        importance: T.Buffer,
        slot: Expr,
    ) -> None:
        self.plan = plan
        self.rows = ScoreRows(spec, features, keys, plan)
        self.votes = votes_of_rows(features, keys, plan, importance, slot)

    @T.inline
    def run(
        self,
        q_rows: T.Buffer,
        q_buckets: T.Buffer,
        first_head: Expr,
        num_heads: Expr,
        first_query: Expr,
        num_queries: Expr,
    ) -> None:
        """The importance of every key to the list of `num_queries` queries, by those of them that
        vote; q_rows (tokens * Hq, D), q_buckets (Hq,)."""
        self.votes.clear()
        for head in range(first_head, first_head + num_heads):
            self.votes.set_head(head, self.rows.column(q_buckets, head))
            stride = T.bind(self.plan.query_stride(head))
            voters = T.bind(T.ceildiv(num_queries, stride))
            for group in range(T.ceildiv(voters, self.rows.register_queries)):
                first = T.bind(group * self.rows.register_queries)
                filled = T.bind(T.min(self.rows.register_queries, voters - first))
                self.rows.fill(
                    q_rows,
                    q_buckets,
                    head,
                    first_query + first * stride,
                    filled,
                    stride,
                    self.votes,
                )
                for i in range(filled):
                    self.votes.add(i)
        self.votes.close()


@T.meta_class
class SharedLists:
    """Every shared list of a sequence, by item: what passes from one stage to the other. Made
    outside parallel loops.

    Attributes
    ----------
    indices : (lists, capacity) int32, of which a list's first are its keys, ascending.
    counts : (lists,) int32, how many those are.
    """

    def __init__(self, features: CpuFeatures, lists: Expr, most_kept: Expr) -> None:
        self.features = features
        self.indices = T.alloc_buffer((lists, most_kept + index_slack(features)), "int32")
        self.counts = T.alloc_buffer((lists,), "int32")

    @T.inline
    def select(
        self, item: Expr, keys: KeyShadow, keep: Expr, importance: T.Buffer, slot: Expr
    ) -> None:
        """The `item`-th list: the `keep` keys that row `slot` of importance (any, padded keys)
        ranks first."""
        selector = RowSelector(self.features)
        selector.start()
        selector.select(
            importance,
            slot,
            T.bind(padded_keys(keys, self.features) // self.features.lanes),
            keys.num_keys,
            keep,
            self.indices,
            item,
            self.counts,
        )


@T.meta_class
class AttendStage:
    """Attention to a list, made inside the stage."""

    def __init__(
        self,
        spec: ShadowSpec,
        features: CpuFeatures,
        keys: KeyShadow,
        lists: SharedLists,
        rest: RestMean,
    ) -> None:
        self.spec = spec.attention
        self.keys = keys
        self.lists = lists
        self.rest = rest
        sizes = list_tile(features, spec.list_rows, spec.attention.head_dim)
        self.tile = ListTile(spec.attention, sizes)

    @T.inline
    def run(
        self,
        item: Expr,
        q: T.Buffer,
        cache_rows: T.Buffer,
        first_head: Expr,
        num_heads: Expr,
        first_query: Expr,
        num_queries: Expr,
        output: T.Buffer,
        lse: T.Buffer,
    ) -> None:
        """`output` and `lse` of every row over the `item`-th list, and the rest."""
        kv_head = T.bind(first_head // self.spec.group_size)
        count = T.bind(self.lists.counts[item])
        self.tile.run(
            q,
            cache_rows,
            self.keys.row_table,
            kv_head * self.spec.page_size,
            value_row_offset(self.spec),
            self.lists.indices,
            item,
            count,
            first_head,
            num_heads,
            first_query,
            num_queries,
            output,
            lse,
            self.rest.of_head(kv_head, count),
        )
