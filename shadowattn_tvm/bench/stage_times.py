"""How long the stages of every list take on a rig, a core of it standing in for the NPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tir_kernels.spec import ShadowSpec, keep_count

from .attention import AttentionGrid
from .inputs import SlotCall, random_inputs
from .kernels import stamped_kernels
from .pipeline import sparse_layers, timed
from .rig import HERE, Rig
from .stamps import Launch, collected_launches

_SEED = 0


@dataclass(frozen=True)
class ListTime:
    """A list's stages in ms, medians over rounds, and what they depend on.

    Attributes
    ----------
    layer, unit : whose list it is.
    heads, queries : whose rows share it.
    voters : queries of each head that vote on it.
    keys, kept : it is selected from so many, and attended to.
    attend_ms : of selection and attention.
    """

    layer: int
    unit: int
    heads: int
    queries: int
    voters: int
    keys: int
    kept: int
    pilot_ms: float
    attend_ms: float


def measure_lists(
    spec: ShadowSpec,
    *,
    contexts: Sequence[int],
    chunk: int,
    rounds: int,
    rig: Rig = HERE,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[ListTime]:
    """The times of all lists of all layers that have any, in the pipeline of two threads of the
    rig; random inputs, one layer's for all.

    Raises `DeviceError` if the rig's device is lost or has one thread only, `CompileError` for a
    plan that has no pipeline, `ConfigError` for a context in which all heads run dense and
    `WrongResultError` if the kernel computes something else than its twin.
    """
    layers = {context: sparse_layers(spec, context) for context in contexts}
    grid = AttentionGrid(
        spec=spec,
        plan="",
        contexts=tuple(contexts),
        chunks=(chunk,),
        workers=(1,),
        rounds=rounds,
        inputs="random",
    )
    kernels = stamped_kernels(rig, spec, ("pipelined",))
    times = list[ListTime]()
    with collected_launches(rig) as collected:
        for context in contexts:
            inputs = random_inputs(spec.attention, chunk, context, _SEED)
            calls = [
                (layer, SlotCall(spec.attention, inputs, layer, rig.device))
                for layer in layers[context]
            ]
            report = partial(progress, f"{context} older tokens")
            launches = timed(rig, grid, kernels, calls, collected, report)["pipelined"]
            by_layer = zip(*launches, strict=True)
            for layer, rounds_of_layer in zip(layers[context], by_layer, strict=True):
                times += list_times(spec, layer, context, chunk, rounds_of_layer)
    return times


def list_times(
    spec: ShadowSpec, layer: int, context: int, chunk: int, launches: Sequence[Launch]
) -> Iterator[ListTime]:
    """The lists of a layer from its launches, one a round; units that run dense have none."""
    pilot_ms = np.median([launch.pilot_ms for launch in launches], axis=0)
    attend_ms = np.median([launch.attend_ms for launch in launches], axis=0)
    block = spec.pilot.query_block
    starts = range(0, chunk, block)
    heads = spec.attention.group_size if spec.pilot.share_group else 1
    for turn, unit in enumerate(spec.owner_order(layer)):
        leader = spec.heads[layer][unit * heads]
        kept = keep_count(context, leader.keep_ratio_q16, spec.k_min)
        if kept == context:
            continue
        for index, first in enumerate(starts):
            item = turn * len(starts) + index
            queries = min(block, chunk - first)
            yield ListTime(
                layer=layer,
                unit=unit,
                heads=heads,
                queries=queries,
                voters=-(-queries // leader.query_stride),
                keys=context,
                kept=kept,
                pilot_ms=float(pilot_ms[item]),
                attend_ms=float(attend_ms[item]),
            )
