"""One workload's trials: tiles are built, measured and recorded, whatever chose them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import tvm
from tvm.s_tir import meta_schedule as ms

from tir_kernels.tuning.definitions import ENTRY, definition
from tir_kernels.tuning.schedule import schedule_of
from tir_kernels.tuning.workloads import Tile, Workload

from .measure import Measurement, Rpc, make_builder, make_runner

_DEVICE = "cpu"
"""TVM's name of what LLVM's targets run on, and we have no others."""


class Trials:
    """Builds and measures tiles of a workload, and adds every measurement to a database. A context:
    leaving it ends the process that measures, and removes what was built.

    Attributes
    ----------
    failed : how many builds and measurements failed.
    reason : what the last of them said.
    """

    def __init__(
        self,
        workload: Workload,
        target: tvm.target.Target,
        database: ms.database.JSONDatabase,
        measurement: Measurement,
        rpc: Rpc | None,
    ) -> None:
        self.failed = 0
        self.reason: str | None = None
        self._workload = workload
        self._target = target
        self._database = database
        self._builder = make_builder(workload)
        self._runner = make_runner(workload, measurement, rpc)
        module = definition(workload)
        self._built: dict[Tile, str] = {}
        self._recorded = database.commit_workload(module)
        self._arguments = ms.arg_info.ArgInfo.from_prim_func(module[ENTRY])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.pool.shutdown()
        for artifact in self._built.values():
            # the builder makes a folder for each
            shutil.rmtree(Path(artifact).parent, ignore_errors=True)

    def run(self, tiles: Sequence[Tile], rounds: int = 1) -> Iterator[tuple[Tile, float | None]]:
        """Build the tiles that weren't built before, then measure all in turn, `rounds` times: each
        measurement's tile and seconds, None if it failed."""
        self._build([tile for tile in tiles if tile not in self._built])
        for _ in range(rounds):
            for tile in tiles:
                artifact = self._built.get(tile)
                yield tile, None if artifact is None else self._measure(tile, artifact)

    def _build(self, tiles: Sequence[Tile]) -> None:
        """Note the path of every tile's kernel, but where it can't be built."""
        if not tiles:
            return
        modules = [schedule_of(self._workload, tile).mod for tile in tiles]
        results = self._builder.build(
            [ms.builder.BuilderInput(module, self._target) for module in modules]
        )
        for tile, result in zip(tiles, results, strict=True):
            if result.artifact_path is None:
                self._note_failure(str(result.error_msg))
            else:
                self._built[tile] = str(result.artifact_path)

    def _measure(self, tile: Tile, artifact: str) -> float | None:
        """The tile's shortest time in seconds, all recorded; None if it fails."""
        (future,) = self._runner.run([ms.runner.RunnerInput(artifact, _DEVICE, self._arguments)])
        result = future.result()
        if result.run_secs is None:
            self._note_failure(str(result.error_msg))
            return None
        seconds = [float(value) for value in result.run_secs]
        self._database.commit_tuning_record(
            ms.database.TuningRecord(
                schedule_of(self._workload, tile).trace,
                self._recorded,
                seconds,
                self._target,
                self._arguments,
            )
        )
        return min(seconds)

    def _note_failure(self, message: str) -> None:
        self.failed += 1
        lines = [line for line in message.splitlines() if line.strip()]
        self.reason = lines[-1].strip() if lines else "unknown"
