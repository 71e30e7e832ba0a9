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
    leaving it ends the process that measures.

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
        self._recorded = database.commit_workload(module)
        self._arguments = ms.arg_info.ArgInfo.from_prim_func(module[ENTRY])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.pool.shutdown()

    def run(self, tiles: Sequence[Tile], rounds: int = 1) -> Iterator[tuple[Tile, float | None]]:
        """Build the tiles, then measure them in turn, `rounds` times: each measurement's tile and
        seconds, None if it failed."""
        artifacts = self._build(tiles)
        try:
            for _ in range(rounds):
                for tile, artifact in zip(tiles, artifacts, strict=True):
                    yield tile, None if artifact is None else self._measure(tile, artifact)
        finally:
            for artifact in filter(None, artifacts):
                # the builder makes a folder for each
                shutil.rmtree(Path(artifact).parent, ignore_errors=True)

    def _build(self, tiles: Sequence[Tile]) -> list[str | None]:
        """The path of every tile's kernel; None where it can't be built."""
        modules = [schedule_of(self._workload, tile).mod for tile in tiles]
        results = self._builder.build(
            [ms.builder.BuilderInput(module, self._target) for module in modules]
        )
        paths = []
        for result in results:
            if result.artifact_path is None:
                self._note_failure(str(result.error_msg))
            paths.append(None if result.artifact_path is None else str(result.artifact_path))
        return paths

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
