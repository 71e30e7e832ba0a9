"""What tests on the emulated Hexagon share: the reason to skip, and the twin of a graph."""

from __future__ import annotations

import numpy as np
import pytest

from shadowattn_tvm.compiler.hexagon.tools import COMPILER, EMULATOR, LINKER
from shadowattn_tvm.config.programs import missing_tools
from tir_kernels.hexagon.graph_spec import PilotGraphSpec
from tir_kernels.hexagon.static_scales import Scales
from tir_kernels.pilot.requantize import Requantizer
from tir_kernels.reference.pilot import pilot_scores
from tir_kernels.reference.pooling import importance
from tir_kernels.reference.requantize import requantize

MISSING = missing_tools(EMULATOR, COMPILER, LINKER)

needs_hexagon = [
    pytest.mark.hexagon,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"`make hexagon-device` installs {', '.join(MISSING)}",
    ),
]
"""For `pytestmark`."""


def random_launch(
    spec: PilotGraphSpec, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[Scales, ...]]:
    """Queries, keys and every head's scales, whose scores use the whole range and saturate."""
    queries = rng.integers(-127, 128, (spec.units, spec.heads, spec.queries, spec.head_dim))
    keys = rng.integers(-127, 128, (spec.units, spec.keys, spec.head_dim))
    scales = tuple(
        (int(rng.integers(1024, 2049)), int(rng.integers(3, 8)), int(rng.integers(200, 9000)))
        for _ in range(spec.all_heads)
    )
    return queries.astype(np.int8), keys.astype(np.int8), scales


def twin_scores(
    spec: PilotGraphSpec, queries: np.ndarray, keys: np.ndarray, scales: tuple[Scales, ...]
) -> np.ndarray:
    """(units, heads, m, n) of the rows and keys that count."""
    scores = np.stack(
        [[pilot_scores(q8, k8) for q8 in q] for q, k8 in zip(queries, keys, strict=True)]
    )
    if not spec.pilot.requantize:
        return scores
    flat = [
        requantize(s, Requantizer(shift, multiplier), spec.pilot.score_max)
        for s, (multiplier, shift, _) in zip(
            scores.reshape(-1, *scores.shape[2:]), scales, strict=True
        )
    ]
    return np.stack(flat).reshape(scores.shape)


def twin_importance(
    spec: PilotGraphSpec, queries: np.ndarray, keys: np.ndarray, scales: tuple[Scales, ...]
) -> np.ndarray:
    """(units, lists, n) of the rows and keys that count."""
    scores = twin_scores(spec, queries, keys, scales)
    steps = np.array([step for _, _, step in scales]).reshape(spec.units, spec.heads).tolist()
    block = spec.list_rows
    return np.stack(
        [
            [
                importance([s[first : first + block] for s in unit], unit_steps)
                for first in range(0, queries.shape[2], block)
            ]
            for unit, unit_steps in zip(scores, steps, strict=True)
        ]
    )
