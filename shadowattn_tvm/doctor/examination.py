"""Everything that is looked at, in the order of the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from .document import Finding, Report
from .packages import PACKAGES
from .probe import Outcome, run_python

if TYPE_CHECKING:  # loads TVM, which may be what is broken
    from ..device.rpc import RpcAddress


def examine(
    address: RpcAddress | None = None,
    *,
    run: Callable[[str], Outcome] = run_python,
    on_finding: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Look at this machine, and at the device at `address`, which counts as required.

    Never raises for anything that is missing or broken. Without a TVM that works there is nothing
    to say of devices. `run` tries pieces of Python; `on_finding` hears of progress.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        packages: list[Finding] = []
        for finding in pool.map(lambda package: package.examine(run), PACKAGES):
            packages.append(finding)
            on_finding(len(packages), len(PACKAGES))
    required = [finding for finding in packages if finding.required]
    findings = [*required]
    if not any(finding.state in ("missing", "broken") for finding in required):
        findings += _what_tvm_can_use(address, run)
    findings += [finding for finding in packages if not finding.required]
    return Report(findings=tuple(findings))


def _what_tvm_can_use(
    address: RpcAddress | None, run: Callable[[str], Outcome]
) -> Iterator[Finding]:
    """Only with a TVM that can be loaded into this process."""
    from . import other_devices, this_machine

    yield this_machine.cpu(run)
    yield this_machine.c_compiler()
    yield this_machine.arm_linker()
    yield this_machine.android_linker()
    yield this_machine.arm_machine()
    yield from this_machine.hexagon()
    yield from other_devices.opencl(run)
    if address is not None:
        yield other_devices.rpc_device(address)
    yield other_devices.mlc_llm(run)
