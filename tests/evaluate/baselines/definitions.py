"""Slow float64 definitions of the baselines, a query and head at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tir_kernels.constants import EMPTY_LSE
from tir_kernels.spec import AttentionSpec, HeadParameters, ShadowSpec

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A chunk of `queries` tokens after `past` older ones. With `ties`, q and k are small integers,
    so that scores are exact in float32 and many are equal."""

    queries: int
    past: int
    q_heads: int = 4
    kv_heads: int = 2
    dims: int = 16
    ties: bool = False

    @property
    def geometry(self) -> AttentionSpec:
        return AttentionSpec(self.q_heads, self.kv_heads, self.dims, sm_scale=self.dims**-0.5)

    def spec(self, ratio: float, k_min: int = 1) -> ShadowSpec:
        head = HeadParameters(q_scale=0.03, k_scale=0.03, keep_ratio_q16=round(ratio * 65536))
        return ShadowSpec(self.geometry, ((head,) * self.q_heads,), 0.5, k_min)

    def tensors(self, seed: int = 0) -> tuple[NDArray[np.float32], ...]:
        """q (m, Hq, D); past k, v (n, Hkv, D); chunk k, v (m, Hkv, D)."""
        rng = np.random.default_rng(seed)

        def make(rows: int, heads: int) -> NDArray[np.float32]:
            if self.ties:
                return rng.integers(-1, 2, (rows, heads, self.dims)).astype(np.float32)
            return rng.normal(size=(rows, heads, self.dims)).astype(np.float32)

        past, chunk = self.past, self.queries
        return (
            make(chunk, self.q_heads),
            make(past, self.kv_heads),
            make(past, self.kv_heads),
            make(chunk, self.kv_heads),
            make(chunk, self.kv_heads),
        )


CASES = (
    Case(queries=1, past=1),
    Case(queries=5, past=7),
    Case(queries=64, past=128),
    Case(queries=70, past=130),
    Case(queries=33, past=200, q_heads=3, kv_heads=3),
    Case(queries=16, past=90, q_heads=9, kv_heads=3, dims=32),
    Case(queries=20, past=150, ties=True),
)


def attend(q: Doubles, k: Doubles, v: Doubles, sm_scale: float) -> tuple[Doubles, float]:
    """One query `q` (D,) over the keys `k`, `v` (n, D) it sees."""
    if len(k) == 0:
        return np.zeros(len(q)), EMPTY_LSE
    scores = k.astype(np.float64) @ q.astype(np.float64) * sm_scale
    weights = np.exp(scores - scores.max())
    return weights @ v.astype(np.float64) / weights.sum(), float(
        (scores.max() + np.log(weights.sum())) / np.log(2.0)
    )


def best(scores: Doubles, keep: int) -> list[int]:
    """Indices of the `keep` largest scores, ties to the lower index."""
    return sorted(sorted(range(len(scores)), key=lambda j: (-scores[j], j))[:keep])


def float_selection(q: Doubles, k: Doubles, i: int, keep: int) -> list[int]:
    """C/G-Sparse: of `q` (m, D), query `i`'s list over `k` (n, D)."""
    return best(k.astype(np.float64) @ q[i].astype(np.float64), keep)


def block_selection(q: Doubles, k: Doubles, i: int, keep: int) -> list[int]:
    """C/G-Block-Sparse: whole blocks of 64 keys by falling score, then the first keys of the
    block that doesn't fit."""
    own = q[i // 64 * 64 : i // 64 * 64 + 64].astype(np.float64).mean(axis=0)
    blocks = [k[a : a + 64].astype(np.float64) for a in range(0, len(k), 64)]
    order = sorted(range(len(blocks)), key=lambda b: (-(blocks[b].mean(axis=0) @ own), b))
    chosen: list[int] = []
    for block in order:
        room = keep - len(chosen)
        chosen += range(block * 64, block * 64 + min(room, len(blocks[block])))
    return sorted(chosen)


def recent_selection(q: Doubles, k: Doubles, i: int, keep: int) -> list[int]:
    """The control: the newest keys."""
    return list(range(len(k) - keep, len(k)))
