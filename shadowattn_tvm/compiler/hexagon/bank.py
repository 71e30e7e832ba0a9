"""A bank of pilot graphs: every graph of a plan, compiled, linked and described."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tir_kernels.quick_parsing import quicken_parsing

from ...config.atomic import atomic_directory
from ...config.json_layout import write_document
from ...errors import CompileError
from ...graph import (
    BankFile,
    BankGraph,
    BankManifest,
    BucketScales,
    PilotGraph,
    pilot_graphs,
)
from ...graph.store import MANIFEST
from ...plan import Plan, plan_hash
from ...weights import ModelDirectory
from ..kernel_parameters import shadow_spec
from ..library import check_plan
from ..overrides import apply_overrides
from .c_header import HEADER_NAME, c_header
from .fastrpc import IDL_NAME, fastrpc_idl
from .objects import GraphObject, code_bytes, compile_graph, link_shared, strip
from .targets import hexagon_config
from .tools import require_linker

LIBRARY_NAME = "libshadowattn_pilot.so"

_PARALLEL_FROM = 16
"""Graphs that are worth the start of other processes, which takes seconds."""


@dataclass(frozen=True)
class CompiledBank:
    """A bank on disk."""

    path: Path
    manifest: BankManifest


def compile_bank(
    directory: ModelDirectory,
    plan: Plan | None,
    *,
    device: str,
    output: Path,
    overrides: str = "",
    select_on_npu: bool = False,
    on_graph: Callable[[int, int], None] = lambda done, total: None,
) -> CompiledBank:
    """Compile a plan's pilot graphs for the DSP `device` into the folder `output`.

    It takes the place of a bank that is there, whole. With `select_on_npu` graphs end in lists of
    keys. `on_graph` is told how many are done.

    Raises `PlanError` (a plan for another model), `ConfigError` (unknown device or overrides),
    `CompileError` (no plan), `DeviceError` (no linker), `OutputError`.
    """
    if plan is None:
        raise CompileError(
            f"{device} runs the pilot of a plan, and without one there is none: expected a plan, "
            "got 'off'"
        )
    config = hexagon_config(device)
    check_plan(plan, directory)
    require_linker()
    architecture = apply_overrides(directory.architecture, overrides)
    graphs = pilot_graphs(
        shadow_spec(plan, architecture),
        config.sizes,
        context_tokens=architecture.context_window_size,
        chunk_tokens=architecture.prefill_chunk_size,
        select=select_on_npu,
    )
    with atomic_directory(output, replace=(output / MANIFEST).is_file()) as staged:
        entries, objects = [], []
        for index, built in enumerate(_compiled(graphs, config.architecture)):
            path = staged / f"{graphs[index].symbol}.o"
            strip(built.elf, path)
            objects.append(path)
            entries.append(_entry(index, graphs[index], built, path))
            on_graph(index + 1, len(graphs))
        link_shared(objects, staged / LIBRARY_NAME)
        manifest = BankManifest(
            model_name=plan.model.name,
            model_fingerprint=plan.model.fingerprint,
            plan_hash=plan_hash(plan),
            architecture=config.architecture,
            num_layers=plan.model.num_layers,
            num_q_heads=plan.model.num_q_heads,
            head_dim=plan.model.head_dim,
            score_bits=plan.pilot.score_bits,
            buckets_per_axis=plan.buckets.per_axis,
            library=_file(staged / LIBRARY_NAME),
            graphs=tuple(entries),
            buckets=_buckets(graphs),
        )
        write_document(staged / MANIFEST, manifest)
        (staged / HEADER_NAME).write_text(c_header(manifest), encoding="utf-8")
        (staged / IDL_NAME).write_text(fastrpc_idl(manifest), encoding="utf-8")
    return CompiledBank(output, manifest)


def _compiled(graphs: tuple[PilotGraph, ...], architecture: str) -> Iterator[GraphObject]:
    """The graphs' objects, in order; many are compiled on all cores."""
    workers = min(os.cpu_count() or 1, len(graphs) // _PARALLEL_FROM)
    compile_one = partial(compile_graph, architecture=architecture)
    if workers < 2:
        quicken_parsing()
        yield from map(compile_one, graphs)
        return
    # "spawn": TVM's threads don't survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=quicken_parsing) as pool:
        try:
            yield from pool.map(compile_one, graphs)
        finally:
            pool.shutdown(cancel_futures=True)


def _entry(index: int, graph: PilotGraph, built: GraphObject, path: Path) -> BankGraph:
    spec = graph.spec
    selection = spec.selection
    dtype = spec.ranked_dtype if selection is None else "int32"
    size = math.prod(spec.ranked_shape) if selection is None else spec.list_words
    return BankGraph(
        index=index,
        symbol=graph.symbol,
        q_bucket=graph.q_bucket,
        k_bucket=graph.k_bucket,
        units=spec.units,
        heads=spec.heads,
        queries=spec.queries,
        keys=spec.keys,
        list_rows=spec.list_rows,
        lists=spec.lists if spec.pilot.pooled else 0,
        list_capacity=0 if selection is None else selection.capacity,
        result_dtype=dtype,
        result_bytes=size * np.dtype(dtype).itemsize,
        workspace_bytes=built.workspace_bytes,
        code_bytes=code_bytes(path.read_bytes()),
        object=_file(path),
    )


def _buckets(graphs: tuple[PilotGraph, ...]) -> tuple[BucketScales, ...]:
    tables = {
        (graph.q_bucket, graph.k_bucket): graph.scales
        for graph in graphs
        if graph.q_bucket is not None and graph.k_bucket is not None
    }
    return tuple(
        BucketScales(q_bucket=q, k_bucket=k, scales=scales) for (q, k), scales in tables.items()
    )


def _file(path: Path) -> BankFile:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return BankFile(name=path.name, sha256=digest, size_bytes=len(content))
