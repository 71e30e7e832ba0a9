"""How candidates are built and measured: MetaSchedule's builder and runners, our kernels.

What is handed to them runs in child processes, so it is functions of a module and their arguments.
Inputs are ours, too. MetaSchedule fills tensors with random bits, and indices of that kind are
beyond any buffer: here lists name keys that are there, and the kernel clamps what it is given.
"""

from __future__ import annotations

import json
import socket
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm.rpc import RPCSession
from tvm.runtime import Device
from tvm.s_tir import meta_schedule as ms

from tir_kernels.build import build_kernels
from tir_kernels.features import TunedTile, cpu_features
from tir_kernels.tuning.definitions import ENTRY
from tir_kernels.tuning.kernels import measured_kernel
from tir_kernels.tuning.schedule import annotated_sizes
from tir_kernels.tuning.workloads import Workload

from ..compiler.link import link, require_linker
from ..errors import ConfigError

_BUILD_TIMEOUT_S = 120.0
_RUN_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 10

_INPUT_SEED = 0
"""Every candidate of a workload has the same inputs."""


@dataclass(frozen=True)
class Rpc:
    """Where an RPC tracker listens, and the key of the devices to measure on."""

    host: str
    port: int
    key: str


@dataclass(frozen=True)
class Measurement:
    """How long a candidate is run: `repeats` times, `min_repeat_ms` or longer each."""

    repeats: int
    min_repeat_ms: int

    @property
    def evaluator(self) -> ms.runner.EvaluatorConfig:
        return ms.runner.EvaluatorConfig(
            number=1, repeat=self.repeats, min_repeat_ms=self.min_repeat_ms
        )


def make_builder(workload: Workload) -> ms.builder.LocalBuilder:
    """Builds our kernel with the tile that a candidate's annotations name, one at a time, so that
    nothing is built while something is measured."""
    return ms.builder.LocalBuilder(
        max_workers=1,
        timeout_sec=_BUILD_TIMEOUT_S,
        f_build=partial(_build, workload),
        f_export=_export,
    )


def make_runner(
    workload: Workload, measurement: Measurement, rpc: Rpc | None
) -> ms.runner.LocalRunner | ms.runner.RPCRunner:
    """Measures here, or on a device that the tracker knows."""
    if rpc is None:
        return ms.runner.LocalRunner(
            timeout_sec=_RUN_TIMEOUT_S,
            evaluator_config=measurement.evaluator,
            f_alloc_argument=partial(_local_arguments, workload),
        )
    return ms.runner.RPCRunner(
        rpc_config=_rpc_config(rpc, session_timeout_s=int(_RUN_TIMEOUT_S)),
        evaluator_config=measurement.evaluator,
        f_alloc_argument=partial(_remote_arguments, workload),
        max_workers=1,
    )


def require_device(rpc: Rpc) -> None:
    """Raise `ConfigError` unless the tracker answers and has a device with the key."""
    try:
        # TVM would try for a minute
        socket.create_connection((rpc.host, rpc.port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ConfigError(
            f"--rpc-tracker: can't reach a tracker at {rpc.host}:{rpc.port}: "
            f"{error.strerror or error}; start one with python -m tvm.exec.rpc_tracker"
        ) from None
    try:
        _rpc_config(rpc, session_timeout_s=_CONNECT_TIMEOUT_S).count_num_servers(
            allow_missing=False
        )
    except ValueError as error:
        reason = str(error).splitlines()[0].removesuffix(" using the following configuration:")
        raise ConfigError(
            f"--rpc-tracker: expected a tracker at {rpc.host}:{rpc.port} that knows a device "
            f"{rpc.key!r}, got: {reason}; python -m tvm.exec.query_rpc_tracker asks it"
        ) from None


def _rpc_config(rpc: Rpc, *, session_timeout_s: int) -> ms.runner.RPCConfig:
    return ms.runner.RPCConfig(
        tracker_host=rpc.host,
        tracker_port=rpc.port,
        tracker_key=rpc.key,
        session_timeout_sec=session_timeout_s,
    )


def _build(
    workload: Workload, module: tvm.IRModule, target: tvm.target.Target, _params: None
) -> tvm.runtime.Module:
    tile = TunedTile(workload.name, tuple(annotated_sizes(module).items()))
    features = replace(cpu_features(target), tuned=(tile,))
    return build_kernels({ENTRY: measured_kernel(workload, features)}, target).mod


def _export(module: tvm.runtime.Module) -> str:
    """Link a candidate into a file of its own; over there may be no linker. It names its target
    itself. Whoever measures it removes the folder."""
    triple = json.loads(module["_get_target_string"]())["mtriple"]
    path = Path(tempfile.mkdtemp(prefix="shadowattn-tune-")) / "candidate.so"
    link(module, path, require_linker(triple))
    return str(path)


def _local_arguments(
    workload: Workload, device: Device, _info: Any, repeats: int
) -> list[list[tvm.runtime.Tensor]]:
    return [
        [
            tvm.runtime.tensor(array, device=device)
            for array in workload.arguments(np.random.default_rng(_INPUT_SEED))
        ]
        for _ in range(repeats)
    ]


def _remote_arguments(
    workload: Workload, _session: RPCSession, device: Device, info: Any, repeats: int
) -> list[list[tvm.runtime.Tensor]]:
    return _local_arguments(workload, device, info, repeats)
