"""The run: every workload's search, measured, and recorded as it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import tvm
from tvm.s_tir import meta_schedule as ms

from tir_kernels.features import CpuFeatures, cpu_features
from tir_kernels.tuning.space import sizes_of, tile_space
from tir_kernels.tuning.workloads import GemmWorkload, Tile, Workload

from ..compiler.tuning import best_tile, target_folder
from ..compiler.tuning_database import read_database
from ..config.chat_config import Quantization, model_dtype
from ..errors import ConfigError, OutputError
from .document import TuningRow
from .measure import Measurement, Rpc, require_device
from .search import Search
from .trials import Trials

KINDS = ("gemm", "list_attention")
"""What `--kernels` may name."""

_BATCH = 4
"""Tiles built, then measured, together: each batch starts a process to build in."""

_FINALISTS = 3
"""The fastest tiles; they and the hand-chosen one are measured again, in turn, since the fastest
of many single measurements is also the luckiest."""

_FINAL_ROUNDS = 5

_PACKAGES = ("cloudpickle", "psutil")
"""Of the `tune` extra; MetaSchedule imports them as late as it can."""

OnTrial = Callable[[str, int, int], None]
"""Told of (kernel, measurements done, measurements in all)."""


@dataclass(frozen=True)
class TuneSettings:
    """How to tune.

    Attributes
    ----------
    trials : tiles of each kernel, at most.
    seed : of the order of random tiles.
    rpc : the device to measure on; None = this machine.
    repeats, min_repeat_ms : measurements of a tile, and how long each lasts at least. The shortest
        counts, since what else runs here only adds to them; so they are many and short, shorter
        than what a scheduler hands out.
    """

    trials: int
    seed: int = 0
    rpc: Rpc | None = None
    repeats: int = 20
    min_repeat_ms: int = 2


def require_tunable(quantization: Quantization) -> None:
    """Raise `ConfigError` for a model in whose dtype nothing is measured."""
    if model_dtype(quantization) != "float32":
        raise ConfigError(
            f"expected a model in q0f32 or q4f32_1, in whose dtype tiles are measured, got "
            f"{quantization}; convert the checkpoint to one of them"
        )


def select_workloads(workloads: Sequence[Workload], kinds: Sequence[str]) -> tuple[Workload, ...]:
    """Those of the kinds wanted.

    Raises `ConfigError` for a kind that we don't know, or that the model and plan have none of.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"--kernels: expected some of {', '.join(KINDS)}, got {kind!r}")
        if kind not in map(_kind, workloads):
            raise ConfigError(f"--kernels: {kind} needs a plan whose queries share lists (--plan)")
    return tuple(each for each in workloads if _kind(each) in kinds)


def tune(
    workloads: Sequence[Workload],
    target: tvm.target.Target,
    output: Path,
    settings: TuneSettings,
    *,
    on_trial: OnTrial = lambda kernel, done, total: None,
) -> list[TuningRow]:
    """Add measurements of the workloads' tiles to the database in `output/<target>`.

    What is measured is on the disk at once: an interrupted run leaves a database that works, and
    another run adds to it.

    Raises `ConfigError` (no tracker or device, packages missing, a database there that isn't ours)
    and `OutputError`.
    """
    _require_packages()
    if settings.rpc is not None:
        require_device(settings.rpc)
    folder = output / target_folder(target)
    database = _open_database(folder)
    features = cpu_features(target)
    rows = []
    for workload in workloads:
        measurement = Measurement(settings.repeats, settings.min_repeat_ms)
        search = Search(workload, features, settings.trials, settings.seed)
        on_done = partial(on_trial, workload.name)
        with Trials(workload, target, database, measurement, settings.rpc) as trials:
            measured = _search(search, trials, workload.tile(features), on_done)
        rows.append(_row(workload, target, features, folder, measured, trials))
    return rows


def _search(
    search: Search, trials: Trials, hand_chosen: Tile, on_trial: Callable[[int, int], None]
) -> int:
    """Measure what the search asks for, then the finalists again; the number of tiles measured."""
    total = search.trials + _FINAL_ROUNDS * min(search.trials, 1 + _FINALISTS)
    done = 0
    while tiles := search.ask(_BATCH):
        for tile, seconds in trials.run(tiles):
            if seconds is not None:
                search.tell(tile, seconds)
            on_trial(done := done + 1, total)
    best = search.best(search.trials)
    finalists = list(dict.fromkeys([hand_chosen, *best[:_FINALISTS]]))
    for _ in trials.run(finalists, _FINAL_ROUNDS):
        on_trial(done := done + 1, total)
    on_trial(total, total)
    return len(best)


def _row(
    workload: Workload,
    target: tvm.target.Target,
    features: CpuFeatures,
    folder: Path,
    measured: int,
    trials: Trials,
) -> TuningRow:
    """What the whole database now says, earlier runs included."""
    database = read_database(folder)
    assert database is not None, "a workload was committed"
    times_s = database.times_s(workload, target, features)
    hand = workload.tile(features)
    best = best_tile(database, workload, target, features)
    return TuningRow(
        kernel=workload.name,
        space=sum(1 for _ in tile_space(workload, features)),
        measured=measured,
        failed=trials.failed,
        reason=trials.reason,
        hand_chosen=sizes_of(workload, hand),
        hand_chosen_ms=times_s[hand] * 1e3 if hand in times_s else None,
        best=None if best is None else sizes_of(workload, best),
        best_ms=None if best is None else times_s[best] * 1e3,
    )


def _open_database(folder: Path) -> ms.database.JSONDatabase:
    """The database in a folder, made if there is none, once we know that it is ours: TVM would
    read whatever it finds there."""
    read_database(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return ms.database.JSONDatabase(work_dir=str(folder))
    except OSError as error:
        raise OutputError(f"can't write to {folder}: {error.strerror}") from None
    except RuntimeError as error:
        raise OutputError(f"can't write to {folder}: {str(error).splitlines()[-1]}") from None


def _kind(workload: Workload) -> str:
    return "gemm" if isinstance(workload, GemmWorkload) else "list_attention"


def _require_packages() -> None:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"tuning needs {' and '.join(missing)}: pip install 'shadowattn-tvm[tune]'"
        )
