"""A bank of pilot graphs on the emulated DSP, with the signature of `shadowattn.npu.pilot`.

It does what a phone's shim does: finds the graph of a launch by its buckets and sizes, pads, calls,
and takes out what was asked for. Slow; for tests and demonstrations.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ...errors import LibraryError
from ...graph import BankGraph, LoadedBank
from .emulator import HexagonEmulator

Int8s = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]

_ARCHITECTURE = "v66"

_HEAD, _Q_BUCKET, _K_BUCKET = range(3)
"""Columns of a launch's `heads`; the rest are its scales, which graphs have of their own."""


class EmulatedBank:
    """Register an instance as the process's pilot: `tvm.register_global_func(
    "shadowattn.npu.pilot", bank)`. A context manager, which ends the emulator.

    Attributes
    ----------
    launches : calls of graphs so far.
    packets : of instructions, that they executed in all.

    Raises `LibraryError` for a bank of another architecture, or one that ends in scores.
    """

    def __init__(self, bank: LoadedBank) -> None:
        manifest = bank.manifest
        if manifest.architecture != _ARCHITECTURE:
            raise LibraryError(
                f"the emulated Hexagon runs {_ARCHITECTURE}, the bank is for "
                f"{manifest.architecture}; compile one with --device hexagon-{_ARCHITECTURE}"
            )
        if any(graph.lists == 0 for graph in manifest.graphs):
            raise LibraryError(
                "the pipeline's pilot hands over importances, but the bank's graphs end in scores; "
                "make a plan that shares lists (calibrate --query-block)"
            )
        self.manifest = manifest
        self.launches = 0
        self.packets = 0
        self._emulator = HexagonEmulator(bank.objects, [g.symbol for g in manifest.graphs])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the emulator."""
        self._emulator.close()

    def __call__(
        self,
        layer: int,
        queries: Any,
        keys: Any,
        heads: Any,
        query_block: int,
        score_max: int,
        importance: Any,
    ) -> None:
        """The pilot's packed function; tensors of TVM's runtime."""
        votes = self.pilot(
            layer, queries.numpy(), keys.numpy(), heads.numpy(), query_block, score_max
        )
        result = importance.numpy()
        result[..., : votes.shape[-1]] = votes
        importance.copyfrom(result)

    def pilot(
        self,
        layer: int,
        queries: Int8s,
        keys: Int8s,
        heads: Int32s,
        query_block: int,
        score_max: int,
    ) -> Int32s:
        """(U, lists, N) int32, the importances of one launch.

        queries (U, G, M, D), keys (U, N, D); heads (U, G, 6): query head, its bucket, that of its
        keys, and its scales. Raises `LibraryError` where the bank has no graph for that, or graphs
        of other scales.
        """
        self._check(layer, heads, query_block, score_max)
        pairs = _bucket_pairs(heads)
        if len(pairs) == 1:
            return self._launch(layer, queries, keys, heads, query_block, pairs.pop())
        # Heads that share lists but not buckets vote one by one: votes add up.
        parts = []
        for unit in range(len(queries)):
            votes = [
                self._launch(
                    layer,
                    queries[unit : unit + 1, h : h + 1],
                    keys[unit : unit + 1],
                    heads[unit : unit + 1, h : h + 1],
                    query_block,
                    _bucket_pairs(heads[unit, h]).pop(),
                )
                for h in range(queries.shape[1])
            ]
            parts.append(np.sum(votes, axis=0, dtype=np.int32))
        return np.concatenate(parts)

    def select(
        self,
        layer: int,
        queries: Int8s,
        keys: Int8s,
        heads: Int32s,
        query_block: int,
        score_max: int,
    ) -> list[list[Int32s]]:
        """Every unit's lists of keys, ascending, of a launch as `pilot` takes it; a bank compiled
        with `--select-on-npu` has the graphs.

        Raises `LibraryError` as `pilot`, and for heads in different buckets: what they vote for is
        known when their votes are added up, which no graph does.
        """
        self._check(layer, heads, query_block, score_max)
        pairs = _bucket_pairs(heads)
        if len(pairs) != 1:
            raise LibraryError(
                f"heads in different buckets {sorted(pairs)} can't share a launch that selects: "
                "expected one pair"
            )
        rows = self._launch(layer, queries, keys, heads, query_block, pairs.pop(), selecting=True)
        return [[row[1 : 1 + row[0]] for row in unit] for unit in rows]

    def _check(self, layer: int, heads: Int32s, query_block: int, score_max: int) -> None:
        """Raise `LibraryError` unless the launch is of the plan that the bank was made from."""
        manifest = self.manifest
        same = query_block in {graph.list_rows for graph in manifest.graphs}
        same = same and score_max == (1 << (manifest.score_bits - 1)) - 1
        tables = {(b.q_bucket, b.k_bucket): b.scales for b in manifest.buckets}
        for head, q_bucket, k_bucket, *scales in heads.reshape(-1, heads.shape[-1]).tolist():
            table = tables.get((q_bucket, k_bucket), ())
            place = layer * manifest.num_q_heads + head
            same = same and place < len(table) and list(table[place]) == scales
        if not same:
            raise LibraryError(
                "the bank's scales are not those of the library: expected both to be compiled "
                "from one plan"
            )

    def _graph(
        self,
        pair: tuple[int, int],
        list_rows: int,
        heads: int,
        units: int,
        keys: int,
        selecting: bool,
    ) -> BankGraph:
        """The smallest graph that holds the keys, of as many units as there are, or the most."""
        of_units = [
            g
            for g in self.manifest.graphs
            if (g.q_bucket, g.k_bucket, g.list_rows, g.heads) == (*pair, list_rows, heads)
        ]
        if of_units and selecting != (of_units[0].list_capacity > 0):
            raise LibraryError(
                "the bank's graphs end in importances; compile it with --select-on-npu"
                if selecting
                else "the bank's graphs end in lists, which the pipeline doesn't take; compile it "
                "without --select-on-npu"
            )
        fitting = [g for g in of_units if g.keys >= keys]
        if not fitting:
            most = max(g.keys for g in self.manifest.graphs)
            raise LibraryError(
                f"the bank has no graph for {keys} keys of units of {heads} heads, buckets {pair}; "
                f"its largest holds {most} keys"
            )
        return min(fitting, key=lambda g: (g.keys, g.units < units, abs(g.units - units)))

    def _launch(
        self,
        layer: int,
        queries: Int8s,
        keys: Int8s,
        heads: Int32s,
        list_rows: int,
        pair: tuple[int, int],
        selecting: bool = False,
    ) -> Int32s:
        """All units and rows of one pair of buckets, by as many graph calls as that takes; see
        `_call`."""
        num_units, group, num_rows, _ = queries.shape
        num_keys = keys.shape[1]
        places = layer * self.manifest.num_q_heads + heads[..., _HEAD]
        lists = []
        first_unit = 0
        while first_unit < num_units:
            graph = self._graph(pair, list_rows, group, num_units - first_unit, num_keys, selecting)
            units = slice(first_unit, min(num_units, first_unit + graph.units))
            parts = [
                self._call(
                    graph,
                    queries[units, :, first : first + graph.queries],
                    keys[units],
                    places[units],
                )[:, : -(-min(graph.queries, num_rows - first) // list_rows)]
                for first in range(0, num_rows, graph.queries)
            ]
            lists.append(np.concatenate(parts, axis=1))
            first_unit = units.stop
        return np.concatenate(lists)

    def _call(self, graph: BankGraph, queries: Int8s, keys: Int8s, places: Int32s) -> Int32s:
        """(units, lists, keys that count) importances of one graph, or (units, lists, 1 + capacity)
        counts and keys; missing units, rows and keys are zeros."""
        dim = self.manifest.head_dim
        padded = np.zeros((graph.units, graph.heads, graph.queries, dim), np.int8)
        padded[: len(queries), :, : queries.shape[2]] = queries
        padded_keys = np.zeros((graph.units, graph.keys, dim), np.int8)
        padded_keys[: len(keys), : keys.shape[1]] = keys
        all_places = np.zeros((graph.units, graph.heads), np.int32)
        all_places[: len(places)] = places
        lengths = np.array([queries.shape[2], keys.shape[1]], np.int32)
        result = np.empty(graph.result_bytes // 4, np.int32)
        workspace = np.empty(graph.workspace_bytes, np.uint8)
        counters = self._emulator.call(
            graph.symbol, [padded, padded_keys, all_places, lengths], [result, workspace]
        )
        self.launches += 1
        self.packets += counters.packets
        shape = (graph.units, graph.lists, -1)
        if graph.list_capacity == 0:
            return result.reshape(shape)[: len(queries), :, : keys.shape[1]]
        num_lists = graph.units * graph.lists
        lists, counts = result[:-num_lists].reshape(shape), result[-num_lists:].reshape(shape)
        return np.concatenate([counts, lists], axis=2)[: len(queries)]


def _bucket_pairs(heads: Int32s) -> set[tuple[int, int]]:
    """The pairs of buckets of a launch's heads."""
    pairs = heads[..., _Q_BUCKET : _K_BUCKET + 1].reshape(-1, 2).tolist()
    return {(int(q), int(k)) for q, k in pairs}
