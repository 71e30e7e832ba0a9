"""Many tokens times a weight [outputs, depth] that stays as stored: a register-blocked GEMM.

Layout: tokens in lanes. The activations are packed, transposed, into panels
`[depth, panel_tokens]`; the weight is read row by row and broadcast. So the large operand needs no
packing, a quantized one is unpacked just before use, and what is packed is used by every output.

Order, for every block of at most `block_tokens` tokens:
1. pack the block (parallel over panels and depth blocks);
2. in parallel over tasks of `task_outputs` outputs: for each depth block, for each register tile of
   outputs, for each panel, add the products to the task's sums; then write the sums, transposed.

Every output is summed by one task, in an order that depends on the shapes alone: results are the
same bits for any number of threads.

Source: the blocking of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication".
"""

from __future__ import annotations

from itertools import product
from typing import Any

from tvm.script import tirx as T

from ..constants import QUANT_GROUP
from ..simd.shuffle import pick, transpose
from ..simd.storage import as_float32, as_stored
from ..simd.vector import Expr, const_f32, splat
from ..spec import LinearSpec
from .accumulators import Accumulators
from .tiles import LinearTile


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@T.meta_class
class Gemm:
    """`y = x @ weight.T` for one spec. Make it and call `run` inside the PrimFunc.

    Attributes
    ----------
    outputs, task_outputs : as in the tile, less if the layer has fewer output features.
    depth : input features of one depth block, `tile.block_depth` made to fit.
    packed : (block_tokens * in_features,) float32, the block's panels:
        [depth block, panel, input feature, token].
    """

    def __init__(self, spec: LinearSpec, tile: LinearTile) -> None:
        self.tile = tile
        self.lanes = tile.lanes
        self.in_features = spec.in_features
        self.out_features = spec.out_features
        self.outputs = min(tile.outputs, spec.out_features)
        self.task_outputs = min(tile.task_outputs, spec.out_features // self.outputs * self.outputs)
        self.num_depth_blocks = -(-spec.in_features // tile.block_depth)
        self.depth = min(
            spec.in_features,
            _round_up(-(-spec.in_features // self.num_depth_blocks), QUANT_GROUP),
        )
        self.packed = T.alloc_buffer((tile.block_tokens * spec.in_features,), "float32")

    def vector(self, first: Expr) -> Expr:
        """The element indices of one vector."""
        return T.ramp(first, 1, self.lanes)

    def block_depth(self, depth_block: Expr) -> Expr:
        """Input features of a depth block; the last one may be shorter."""
        if self.in_features % self.depth == 0:
            return T.int64(self.depth)
        return T.min(T.int64(self.depth), self.in_features - depth_block * self.depth)

    def panel_start(self, depth_block: Expr, panel: Expr) -> Expr:
        """Where a panel of a depth block starts in `packed`."""
        return depth_block * (
            self.depth * self.tile.block_tokens
        ) + panel * self.tile.panel_tokens * self.block_depth(depth_block)

    def sum_start(self, panel: Expr, output: Expr) -> Expr:
        """Where the sums of a panel and an output of the task start."""
        return (panel * self.task_outputs + output) * self.tile.panel_tokens

    @T.inline
    def run(self, x: T.Buffer, weight: Any, y: T.Buffer, num_tokens: Expr) -> None:
        """x (num_tokens, K), weight from `weight_rows`, y (num_tokens, N)."""
        for block in range(T.ceildiv(num_tokens, self.tile.block_tokens)):
            first_token = T.bind(block * self.tile.block_tokens)
            tokens = T.bind(T.min(num_tokens - first_token, self.tile.block_tokens))
            panels = T.bind(T.ceildiv(tokens, self.tile.panel_tokens))
            for job in T.parallel(panels * self.num_depth_blocks):
                self.pack(x, num_tokens, first_token, job // panels, job % panels)
            for task in T.parallel(T.int64(-(-self.out_features // self.task_outputs))):
                # The last task overlaps the one before it instead of being smaller: both write
                # the same bits.
                first_output = T.bind(
                    T.min(task * self.task_outputs, self.out_features - self.task_outputs)
                )
                sums = T.alloc_buffer((self.task_outputs * self.tile.block_tokens,), "float32")
                self.multiply(weight, first_output, tokens, panels, sums)
                self.write(sums, y, first_token, tokens, panels, first_output)

    @T.inline
    def pack(
        self, x: T.Buffer, num_tokens: Expr, first_token: Expr, depth_block: Expr, panel: Expr
    ) -> None:
        """Transpose one panel of one depth block; tokens past the end repeat the last one."""
        depth = T.bind(self.block_depth(depth_block))
        first_k = T.bind(depth_block * self.depth)
        whole = T.bind(depth // self.lanes * self.lanes)
        for v in range(self.tile.token_vectors):
            token = T.bind(first_token + panel * self.tile.panel_tokens + v * self.lanes)
            target = T.bind(self.panel_start(depth_block, panel) + v * self.lanes)
            if token < num_tokens:
                for square in range(depth // self.lanes):
                    k = T.bind(square * self.lanes)
                    self.pack_square(x, num_tokens, token, first_k + k, target, k)
                for k in range(depth - whole):
                    for lane in range(self.lanes):
                        self.packed[target + (whole + k) * self.tile.panel_tokens + lane] = (
                            as_float32(x[T.min(token + lane, num_tokens - 1), first_k + whole + k])
                        )

    def pack_square(
        self, x: Any, num_tokens: Expr, token: Expr, first_k: Expr, target: Expr, k: Expr
    ) -> None:
        """Emit the transposition of `lanes` tokens by `lanes` input features."""
        rows = [
            as_float32(x[T.min(token + lane, num_tokens - 1), self.vector(first_k)])
            for lane in range(self.lanes)
        ]
        for column, values in enumerate(transpose(rows, self.lanes)):
            start = target + (k + column) * self.tile.panel_tokens
            T.buffer_store(self.packed, values, [self.vector(start)])

    def rows_ahead(self, panel: Expr, panels: Expr) -> Expr:
        """Rows of the next register tile asked for before a panel's turn."""
        return panel * self.outputs // panels

    @T.inline
    def multiply(
        self, weight: Any, first_output: Expr, tokens: Expr, panels: Expr, sums: T.Buffer
    ) -> None:
        """sums[panel, output, token] = products over all input features."""
        weight.start_task(self.outputs, self.depth)
        for i in range(panels * (self.task_outputs * self.tile.token_vectors)):
            sums[self.vector(i * self.lanes)] = const_f32(0.0, self.lanes)
        for depth_block in range(self.num_depth_blocks):
            first_k = T.bind(T.int64(depth_block) * self.depth)
            depth = T.bind(self.block_depth(depth_block))
            for group in range(self.task_outputs // self.outputs):
                output = T.bind(first_output + group * self.outputs)
                weight.load_tile(output, first_k, depth)
                for panel in range(panels):
                    # while this tile's rows are multiplied, some of the next one's arrive
                    for row in range(
                        self.rows_ahead(panel, panels), self.rows_ahead(panel + 1, panels)
                    ):
                        ahead = T.bind(T.min(output + self.outputs + row, self.out_features - 1))
                        weight.prefetch(ahead, first_k, self.depth)
                    source = T.bind(self.panel_start(depth_block, panel))
                    target = T.bind(self.sum_start(panel, group * self.outputs))
                    if tokens - panel * self.tile.panel_tokens > self.lanes:
                        self.add_products(
                            weight,
                            output,
                            first_k,
                            depth,
                            source,
                            sums,
                            target,
                            self.tile.token_vectors,
                        )
                    else:
                        self.add_products(weight, output, first_k, depth, source, sums, target, 1)

    @T.inline
    def add_products(
        self,
        weight: Any,
        first_output: Expr,
        first_k: Expr,
        depth: Expr,
        source: Expr,
        sums: T.Buffer,
        target: Expr,
        vectors: int,
    ) -> None:
        """The microkernel: one register tile over one depth block, `vectors` vectors wide."""
        acc = T.meta_var(Accumulators(self.outputs, vectors, self.lanes))
        acc.load(sums, target, self.tile.panel_tokens)
        for step in range(depth // self.tile.weights_at_once):
            k = T.bind(step * self.tile.weights_at_once)
            self.add_outer_products(
                weight, first_output, first_k, k, source, acc, vectors, self.tile.weights_at_once
            )
        if self.in_features % self.tile.weights_at_once > 0:
            for step in range(depth % self.tile.weights_at_once):
                k = T.bind(depth // self.tile.weights_at_once * self.tile.weights_at_once + step)
                self.add_outer_products(weight, first_output, first_k, k, source, acc, vectors, 1)
        acc.store(sums, target, self.tile.panel_tokens)

    def add_outer_products(
        self,
        weight: Any,
        first_output: Expr,
        first_k: Expr,
        k: Expr,
        source: Expr,
        acc: Accumulators,
        vectors: int,
        count: int,
    ) -> None:
        """Emit `acc += the outer products` of `count` input features from `k` on."""
        loaded = [
            T.bind(weight.at(first_output, first_k, r, k, count)) for r in range(self.outputs)
        ]
        for s in range(count):
            start = source + (k + s) * self.tile.panel_tokens
            tokens = [
                T.bind(self.packed[self.vector(start + v * self.lanes)]) for v in range(vectors)
            ]
            for r, v in product(range(self.outputs), range(vectors)):
                factor = loaded[r] if count == 1 else pick([loaded[r]], [s])
                acc.add(r, v, splat(factor, self.lanes) * tokens[v])

    @T.inline
    def write(
        self,
        sums: T.Buffer,
        y: T.Buffer,
        first_token: Expr,
        tokens: Expr,
        panels: Expr,
        first_output: Expr,
    ) -> None:
        """y[token, output] = sums[panel, output, token], squares where all tokens are real."""
        squares = T.meta_var(self.task_outputs // self.lanes)
        for panel in range(panels):
            for v in range(self.tile.token_vectors):
                token = T.bind(panel * self.tile.panel_tokens + v * self.lanes)
                source = T.bind(self.sum_start(panel, 0) + v * self.lanes)
                whole_square = T.bind(token + self.lanes <= tokens)
                if whole_square:
                    for square in range(squares):
                        self.write_square(
                            sums,
                            source + square * (self.lanes * self.tile.panel_tokens),
                            y,
                            first_token + token,
                            first_output + square * self.lanes,
                        )
                done = T.bind(T.if_then_else(whole_square, squares * self.lanes, 0))
                for lane in range(T.max(T.min(tokens - token, self.lanes), 0)):
                    for output in range(self.task_outputs - done):
                        y[first_token + token + lane, first_output + done + output] = as_stored(
                            sums[source + (done + output) * self.tile.panel_tokens + lane], y.dtype
                        )

    def write_square(
        self, sums: Any, source: Expr, y: Any, first_token: Expr, first_output: Expr
    ) -> None:
        """Emit the transposition of `lanes` outputs by `lanes` tokens."""
        rows = [
            sums[self.vector(source + output * self.tile.panel_tokens)]
            for output in range(self.lanes)
        ]
        for token, values in enumerate(transpose(rows, self.lanes)):
            where = [first_token + token, self.vector(first_output)]
            T.buffer_store(y, as_stored(values, y.dtype), where)
