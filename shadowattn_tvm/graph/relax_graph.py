"""One pilot graph as a Relax module: its stages are calls of kernels, shapes and scales static."""

from __future__ import annotations

import tvm
from tvm import relax

from tir_kernels.hexagon.pack_keys import pack_keys
from tir_kernels.hexagon.pilot_scores import pilot_scores
from tir_kernels.hexagon.pooled_pilot import SCALE_FIELDS, pooled_pilot
from tir_kernels.hexagon.score_tile import TILE_KEYS
from tir_kernels.hexagon.select_lists import select_lists
from tir_kernels.hexagon.static_scales import keep_ratios, static_scales

from .bank import PilotGraph

GRAPH_ENTRY = "main"
"""The graph's Relax function."""


def pilot_module(graph: PilotGraph) -> tvm.IRModule:
    """`main(queries, keys, heads, lengths)`.

    Variables: `queries` (units, heads, M, D) int8; `keys` (units, N, D) int8; `heads`
    (units * heads,) int32, `layer * query heads of a layer + head` of each; `lengths` (2,) int32,
    the rows and the keys that count. Result: importances (units, lists, N) int32, or scores
    (units, heads, M, N); see `pooled_pilot` and `pilot_scores`. Of a graph that selects: lists of
    these rows, one int32 vector, see `select_lists`.
    """
    spec = graph.spec
    tensor = relax.TensorType
    queries = relax.Var(
        "queries", tensor((spec.units, spec.heads, spec.queries, spec.head_dim), "int8")
    )
    keys = relax.Var("keys", tensor((spec.units, spec.keys, spec.head_dim), "int8"))
    heads = relax.Var("heads", tensor((spec.all_heads,), "int32"))
    lengths = relax.Var("lengths", tensor((2,), "int32"))
    builder = relax.BlockBuilder()
    with builder.function(GRAPH_ENTRY, [queries, keys, heads, lengths]):
        with builder.dataflow():
            packed = builder.emit(
                relax.call_tir(
                    builder.add_func(pack_keys(spec), "pack_keys"),
                    [keys, lengths],
                    tensor(spec.packed_shape, "int32"),
                )
            )
            operands = [queries, packed]
            if graph.scales:
                stage = static_scales(graph.scales, spec.all_heads)
                operands.append(
                    builder.emit(
                        relax.call_tir(
                            builder.add_func(stage, "static_scales"),
                            [heads],
                            tensor((spec.all_heads, SCALE_FIELDS), "int32"),
                        )
                    )
                )
            operands.append(lengths)
            if spec.pilot.pooled:
                outputs = builder.emit(
                    relax.call_tir(
                        builder.add_func(pooled_pilot(spec), "pooled_pilot"),
                        operands,
                        [
                            tensor(spec.ranked_shape, spec.ranked_dtype),
                            tensor(spec.scratch_shape, "int32"),
                            tensor(spec.scratch_shape, "int32"),
                        ],
                    )
                )
                ranked = outputs[0]
            else:
                ranked = builder.emit(
                    relax.call_tir(
                        builder.add_func(pilot_scores(spec), "pilot_scores"),
                        operands,
                        tensor(spec.ranked_shape, spec.ranked_dtype),
                    )
                )
            if spec.selection is not None:
                stage = keep_ratios(graph.keep_ratios, spec.all_heads)
                ratios = builder.emit(
                    relax.call_tir(
                        builder.add_func(stage, "keep_ratios"),
                        [heads],
                        tensor((spec.all_heads, 1), "int32"),
                    )
                )
                lists = builder.emit(
                    relax.call_tir(
                        builder.add_func(select_lists(spec), "select_lists"),
                        [ranked, ratios, lengths],
                        [
                            tensor((spec.list_words,), "int32"),
                            tensor((spec.keys + TILE_KEYS,), "int32"),
                        ],
                    )
                )
                ranked = lists[0]
            result = builder.emit_output(ranked)
        builder.emit_func_output(result)
    return builder.finalize()
