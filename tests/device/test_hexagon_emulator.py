"""The emulator as a device: what goes wrong there is said, and the next one works."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from shadowattn_tvm.device.hexagon import HexagonEmulator, require_emulator
from shadowattn_tvm.errors import DeviceError
from tests.hexagon import needs_hexagon
from tir_kernels.hexagon.build import build_object

pytestmark = needs_hexagon


def shifted(extra: int, start: int = 0) -> tirx.PrimFunc:
    """y[start : 4 + extra] = x + 1."""

    @T.prim_func(s_tir=True)
    def kernel(var_x: T.handle, var_y: T.handle) -> None:
        T.func_attr({"tirx.is_scheduled": True})
        x = T.match_buffer(var_x, (1 << 28,), "int32")
        y = T.match_buffer(var_y, (1 << 28,), "int32")
        for i in range(4 + extra):
            y[start + i] = x[i] + 1

    return kernel


def test_calls_are_counted_and_repeatable() -> None:
    x, y = np.arange(4, dtype=np.int32), np.zeros(4, np.int32)
    with HexagonEmulator([build_object({"f": shifted(0)}, "v66").elf], ["f"]) as dsp:
        first = dsp.call("f", [x], [y])
        assert dsp.call("f", [x], [y]) == first
        np.testing.assert_array_equal(y, x + 1)
        assert 0 < first.packets < first.instructions
        assert first.hvx_instructions == 0
        with pytest.raises(DeviceError, match="nothing named 'g'"):
            dsp.call("g", [x], [y])
    with pytest.raises(DeviceError, match="gone"):
        dsp.call("f", [x], [y])


def test_writing_outside_is_noticed() -> None:
    x, y = np.arange(40, dtype=np.int32), np.zeros(4, np.int32)
    built = build_object({"after": shifted(1), "before": shifted(0, start=-1)}, "v66")
    with HexagonEmulator([built.elf], ["after", "before"]) as dsp:
        for symbol in ("after", "before"):
            with pytest.raises(DeviceError, match=f"{symbol} wrote outside"):
                dsp.call(symbol, [x], [y])


def test_a_crash_is_said() -> None:
    x, y = np.arange(4, dtype=np.int32), np.zeros(4, np.int32)
    with (
        HexagonEmulator([build_object({"f": shifted(0, 1 << 27)}, "v66").elf], ["f"]) as dsp,
        pytest.raises(DeviceError, match=r"gone \(exit code -11\)"),
    ):
        dsp.call("f", [x], [y])


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="apt-get install qemu-user clang-19 lld-19"):
        require_emulator()
    with pytest.raises(DeviceError, match="make hexagon-device"):
        HexagonEmulator([], [])


def test_what_does_not_link_is_said() -> None:
    with pytest.raises(DeviceError, match=r"ld\.lld-19 -m hexagonelf failed: .*missing"):
        HexagonEmulator([build_object({"f": shifted(0)}, "v66").elf], ["missing"])
