"""The bank for C: prototypes, a table of graphs, and the calling convention in words."""

from __future__ import annotations

from tir_kernels.hexagon.build import ALIGNMENT_BYTES

from ...graph import BankManifest

HEADER_NAME = "shadowattn_pilot.h"

_OPENING = """\
/* Pilot graphs of {model}, plan {plan}, for Hexagon {architecture}.
 *
 * Every graph is
 *   int graph(const int8_t *queries, const int8_t *keys, const int32_t *heads,
 *             const int32_t *lengths, void *result, void *workspace);
 * and returns 0. All pointers are aligned to {alignment} bytes, and no buffer overlaps another. A
 * graph keeps nothing, calls nothing, and runs on any hardware thread that holds an HVX context.
 *   queries    [units][heads][queries][{head_dim}], those that vote, quantized, list_rows on each
 *              list; rows from lengths[0] on are not read beyond the next multiple of 4
 *   keys       [units][keys][{head_dim}], of each unit's KV head, quantized; rows from
 *              lengths[1] on have no say, whatever they hold
 *   heads      [units * heads], layer * {num_q_heads} + query head: whose scales and keep ratios
 *   lengths    {{queries that count, keys that count}}, from 1 to the graph's
 *   result     {result}
 *   workspace  workspace_bytes of scratch
 * A graph serves heads whose scales are those of its buckets: manifest.json has all integers. */
#ifndef SHADOWATTN_PILOT_H
#define SHADOWATTN_PILOT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define SHADOWATTN_PILOT_ABI "{abi}"
#define SHADOWATTN_PILOT_PLAN "{plan_hash}"
#define SHADOWATTN_PILOT_ALIGNMENT {alignment}
#define SHADOWATTN_PILOT_NUM_GRAPHS {num_graphs}

typedef int (*shadowattn_pilot_graph)(const int8_t *, const int8_t *, const int32_t *,
                                      const int32_t *, void *, void *);

"""

_TABLE = """
/* q_bucket and k_bucket count from the smallest scale; -1: the graph has no scales. */
typedef struct {
  shadowattn_pilot_graph run;
  int32_t q_bucket, k_bucket, units, heads, queries, keys, list_rows, lists, list_capacity;
  uint32_t result_bytes, workspace_bytes;
} shadowattn_pilot_entry;

/* Define SHADOWATTN_PILOT_TABLE in the one file that is to hold the table. */
#ifdef SHADOWATTN_PILOT_TABLE
const shadowattn_pilot_entry shadowattn_pilot_entries[SHADOWATTN_PILOT_NUM_GRAPHS] = {
"""

_CLOSING = """\
};
#else
extern const shadowattn_pilot_entry shadowattn_pilot_entries[SHADOWATTN_PILOT_NUM_GRAPHS];
#endif

#ifdef __cplusplus
}
#endif

#endif
"""


def c_header(manifest: BankManifest) -> str:
    """The text of the header."""
    opening = _OPENING.format(
        model=manifest.model_name.replace("*/", ""),
        plan=manifest.plan_hash[:12],
        architecture=manifest.architecture,
        alignment=ALIGNMENT_BYTES,
        head_dim=manifest.head_dim,
        num_q_heads=manifest.num_q_heads,
        result=_result(manifest),
        abi=manifest.abi,
        plan_hash=manifest.plan_hash,
        num_graphs=len(manifest.graphs),
    )
    prototypes = "".join(
        f"int {graph.symbol}(const int8_t *, const int8_t *, const int32_t *, const int32_t *, "
        "void *, void *);\n"
        for graph in manifest.graphs
    )
    rows = []
    for g in manifest.graphs:
        buckets = [-1 if bucket is None else bucket for bucket in (g.q_bucket, g.k_bucket)]
        sizes = [g.units, g.heads, g.queries, g.keys, g.list_rows, g.lists, g.list_capacity]
        numbers = [*buckets, *sizes, g.result_bytes, g.workspace_bytes]
        rows.append(f"    {{{g.symbol}, {', '.join(map(str, numbers))}}},\n")
    return opening + prototypes + _TABLE + "".join(rows) + _CLOSING


def _result(manifest: BankManifest) -> str:
    """What graphs end in."""
    pooled = manifest.graphs[0].lists > 0
    rows = "[units][lists]" if pooled else "[units][heads][queries]"
    name = "importances" if pooled else "scores"
    lists = (
        f"{rows}[list_capacity] int32, the keys with the largest\n"
        f" *              {name}, ascending, -1 beyond the count; then {rows} int32,\n"
        " *              the counts"
    )
    others = [graph for graph in manifest.graphs if graph.list_capacity == 0]
    if not others:
        return lists
    text = f"{rows}[keys] {others[0].result_dtype}, {name}; the lowest number from lengths[1] on"
    if len(others) == len(manifest.graphs):
        return text
    return f"{lists};\n *              without a list_capacity {text}"
