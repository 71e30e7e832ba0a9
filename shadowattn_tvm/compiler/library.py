"""Target, model and plan in, model library out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import tvm
from tvm.support import tar

from tir_kernels.build import gpu_pass_context, pass_context
from tir_kernels.features import cpu_features
from tir_kernels.quick_parsing import quicken_parsing

from ..config.atomic import write_atomically
from ..config.chat_config import model_dtype
from ..errors import OutputError, PlanError
from ..model import export_model
from ..plan import Plan
from ..transform import PipelineOptions, build_gpu_pipeline, build_pipeline, require_supported
from ..weights import ModelDirectory, model_fingerprint
from .cache import cached_library_path, library_key
from .kernel_parameters import attention_spec, library_spec, rope_scaling
from .link import link, require_linker
from .metadata import library_metadata
from .overrides import apply_overrides
from .targets import resolve_device
from .tuning import SHIPPED, TunedKernels, model_workloads, tuned_kernels

ARCHIVE_SUFFIX = ".tar"


@dataclass(frozen=True)
class Phase:
    """One finished step of a compilation."""

    name: str
    duration_s: float


@dataclass(frozen=True)
class CompiledLibrary:
    """A library on disk.

    Attributes
    ----------
    path : the shared object, or an archive of object files.
    phases : what was done and how long it took; empty if the cache had it already.
    tuned : which of its kernels have tuned tiles.
    """

    path: Path
    phases: tuple[Phase, ...]
    tuned: TunedKernels

    @property
    def from_cache(self) -> bool:
        return not self.phases


def compile_library(
    directory: ModelDirectory,
    plan: Plan | None,
    *,
    device: str = "host",
    overrides: str = "",
    output: Path | None = None,
    debug_dump: Path | None = None,
    trace: bool = False,
    tuning_logs: str = SHIPPED,
    on_phase: Callable[[Phase], None] = lambda phase: None,
) -> CompiledLibrary:
    """Compile `directory`'s model for `device`, with shadowAttn if a plan is given.

    The library lands in the cache, keyed by content, and is copied to `output` if given; where that
    ends in `.tar` it is an archive of object files, which takes no linker.
    `on_phase` is called as each phase ends. With `debug_dump` the cache is not consulted and the
    IR after each phase is written there. With `trace` the library appends the stamps of its
    pipelines to the file that `SHADOWATTN_TRACE` names. `tuning_logs`: see `tuned_kernels`.

    Raises `PlanError` (a plan for another model), `ConfigError` (unknown device or overrides),
    `CompileError`, `OutputError`.
    """
    cached = _compiled(
        directory,
        plan,
        device=device,
        overrides=overrides,
        archive=output is not None and output.suffix == ARCHIVE_SUFFIX,
        debug_dump=debug_dump,
        trace=trace,
        tuning_logs=tuning_logs,
        on_phase=on_phase,
    )
    if output is None:
        return cached
    with write_atomically(output) as staged:
        shutil.copyfile(cached.path, staged)
    return replace(cached, path=output)


def compile_open_library(
    directory: ModelDirectory,
    *,
    device: str = "host",
    overrides: str = "",
    on_phase: Callable[[Phase], None] = lambda phase: None,
) -> CompiledLibrary:
    """Compile `directory`'s model with its prefill slots left open (see
    `transform.OpenPrefillSlots`), for evaluation: whoever loads it provides the attention.

    The library is in the cache. Raises like `compile_library`.
    """
    return _compiled(
        directory, None, device=device, overrides=overrides, open_prefill=True, on_phase=on_phase
    )


def _compiled(
    directory: ModelDirectory,
    plan: Plan | None,
    *,
    device: str,
    overrides: str,
    archive: bool = False,
    open_prefill: bool = False,
    debug_dump: Path | None = None,
    trace: bool = False,
    tuning_logs: str = SHIPPED,
    on_phase: Callable[[Phase], None],
) -> CompiledLibrary:
    """The library in the cache, compiled if it isn't there."""
    resolved = resolve_device(device)
    target = resolved.target
    architecture = apply_overrides(directory.architecture, overrides)
    if plan is not None:
        check_plan(plan, directory)
    features = cpu_features(target)
    tuned = TunedKernels()
    if not resolved.is_gpu:
        workloads = model_workloads(architecture, directory.quantization, plan)
        tuned = tuned_kernels(workloads, target, features, tuning_logs)
    key = library_key(
        directory,
        architecture,
        plan,
        resolved,
        open_prefill=open_prefill,
        trace=trace,
        tuned=tuned.tiles,
    )
    cached = cached_library_path(key, ARCHIVE_SUFFIX if archive else ".so")
    phases: list[Phase] = []
    if debug_dump is not None or not cached.is_file():
        linker = None if archive else require_linker(resolved.triple)
        clock = _PhaseClock(phases, on_phase)
        clock.begin("trace the model")
        quicken_parsing()
        with target:
            exported = export_model(architecture, directory.quantization, target)
        dtype = model_dtype(directory.quantization)
        shadow = None if plan is None else library_spec(plan, architecture, dtype)
        if debug_dump is not None:
            _make_folder(debug_dump)
        options = PipelineOptions(
            target=target,
            features=replace(features, tuned=tuned.tiles),
            attention=shadow.attention if shadow else attention_spec(architecture, dtype),
            rope_theta=float(architecture.position_embedding_base),
            rope_scaling=rope_scaling(architecture),
            shadow=shadow,
            hidden_size=architecture.hidden_size,
            prefill_chunk_size=architecture.prefill_chunk_size,
            context_window_size=architecture.context_window_size,
            max_batch_size=architecture.max_batch_size,
            metadata=library_metadata(
                directory, architecture, exported.parameters, plan, shadow, tuned.tiles
            ),
            report=clock.begin,
            debug_dump=debug_dump,
            pipeline_workers=0 if plan is None else resolved.pipeline_workers,
            trace=trace,
            open_prefill=open_prefill,
        )
        require_supported(exported.module, options)
        pipeline = build_gpu_pipeline(options) if resolved.is_gpu else build_pipeline(options)
        with target, gpu_pass_context() if resolved.is_gpu else pass_context():
            module = pipeline(exported.module)
            clock.begin("generate code")
            executable = tvm.compile(module, target=target, relax_pipeline=None)
        clock.begin("archive" if archive else "link")
        # Another process may have been quicker: who took its library has the file that stays.
        with write_atomically(cached, replace=False) as staged:
            if archive:
                executable.export_library(str(staged), fcompile=tar.tar)
            else:
                link(executable, staged, linker)
        clock.end()
    return CompiledLibrary(cached, tuple(phases), tuned)


def check_plan(plan: Plan, directory: ModelDirectory) -> None:
    """Raise `PlanError` unless the plan was made for the checkpoint in `directory`."""
    fingerprint = model_fingerprint(directory)
    if plan.model.fingerprint != fingerprint:
        raise PlanError(
            f"the plan was made for {plan.model.name} (fingerprint "
            f"{plan.model.fingerprint[:12]}), but {directory.path} holds another model "
            f"(fingerprint {fingerprint[:12]}); make a plan for it with `shadowattn calibrate`"
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"can't write the debug dump to {folder}: {error.strerror}") from None


class _PhaseClock:
    """Turns "phase X begins" into finished phases with durations."""

    def __init__(self, phases: list[Phase], on_phase: Callable[[Phase], None]) -> None:
        self._phases = phases
        self._on_phase = on_phase
        self._current: tuple[str, float] | None = None

    def begin(self, name: str) -> None:
        self.end()
        self._current = (name, time.perf_counter())

    def end(self) -> None:
        if self._current is None:
            return
        name, started = self._current
        self._current = None
        phase = Phase(name, time.perf_counter() - started)
        self._phases.append(phase)
        self._on_phase(phase)
