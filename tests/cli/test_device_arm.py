"""`shadowattn device arm` and `compile --device arm64`, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shadowattn_tvm.compiler import compile_library, resolve_target
from shadowattn_tvm.compiler.cross_link import LINKERS, NDK_VARIABLE, cross_linker
from shadowattn_tvm.device.arm import image_path, require_emulator
from shadowattn_tvm.device.rpc import RpcAddress, connect
from shadowattn_tvm.errors import CompileError, ShadowAttnError
from shadowattn_tvm.weights import ModelDirectory
from tests.cli.conftest import Run
from tir_kernels.build import build_kernels
from tir_kernels.features import NEON_DOTPROD, NEON_I8MM, CpuFeatures, cpu_features
from tir_kernels.pilot.scores import pilot_scores
from tir_kernels.spec import AttentionSpec

AARCH64 = 183
"""ELF's number of the machine."""


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without a running machine, but with the image of the user's."""
    image = image_path()
    try:
        require_emulator()
    except ShadowAttnError as missing:
        pytest.skip(str(missing))
    if not image.is_dir():
        pytest.skip("no image of an ARM machine: `make arm-device` makes it")
    monkeypatch.setenv("SHADOWATTN_CACHE", str(tmp_path))
    image_path().parent.mkdir(parents=True)
    image_path().symlink_to(image)
    return tmp_path


@pytest.mark.arm
def test_a_machine_in_the_background(run: Run, own_cache: Path) -> None:
    code, _, err = run("device", "arm", "status")
    assert code == 2
    assert "shadowattn device arm start" in err
    code, out, _ = run("device", "arm", "start", "--cpu", "cortex-a53", "--threads", 2)
    try:
        assert code == 0
        host, _, port = out.strip().rpartition(":")
        session = connect(RpcAddress(host, int(port)))
        assert session.get_function("runtime.NumThreads")() == 2
        del session
        code, again, err = run("device", "arm", "start")
        assert code == 2
        assert f"running already: process {_status(run, own_cache)['pid']}" in err
        assert again == ""
    finally:
        assert run("device", "arm", "stop")[0] == 0
    assert run("device", "arm", "status")[0] == 2
    assert run("device", "arm", "stop")[0] == 0, "nothing to stop is no mistake"


def _status(run: Run, folder: Path) -> dict[str, object]:
    code, _, _ = run("device", "arm", "status", "--json", folder / "status.json")
    assert code == 0
    status: dict[str, object] = json.loads((folder / "status.json").read_text())
    assert (status["cpu"], status["threads"]) == ("cortex-a53", 2)
    return status


@pytest.mark.arm
def test_a_cpu_that_there_is_not(run: Run, own_cache: Path) -> None:
    code, out, err = run("device", "arm", "start", "--cpu", "z80")
    assert (code, out) == (2, "")
    assert "didn't start" in err
    assert "z80" in err
    assert not (own_cache / "devices" / "arm.json").exists()


def test_mistakes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWATTN_CACHE", str(tmp_path))
    for command in (("device", "arm", "start"), ("chat", "none")):
        code, _, err = run(*command, "--tracker", "localhost:9190")
        assert code == 2
        assert "--tracker and --key together" in err
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, err = run("device", "arm", "start")
    assert code == 2
    assert "apt-get install" in err
    assert "make arm-device" in err


def test_a_status_that_is_spoilt(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWATTN_CACHE", str(tmp_path))
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "arm.json").write_text('{"pid": "me"}')
    code, _, err = run("device", "arm", "status")
    assert code == 2
    assert "pid" in err


def test_a_process_of_another_is_not_the_machine(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process numbers are used again: `stop` must not end whoever has ours now."""
    monkeypatch.setenv("SHADOWATTN_CACHE", str(tmp_path))
    (tmp_path / "devices").mkdir()
    status = {"pid": 1, "port": 9190, "cpu": "max", "threads": 1, "tracker": None, "key": ""}
    (tmp_path / "devices" / "arm.json").write_text(json.dumps({**status, "log": "/nowhere"}))
    assert run("device", "arm", "status")[0] == 2
    assert run("device", "arm", "stop")[0] == 0


@pytest.mark.arm
def test_compile_for_arm64(run: Run, tiny_directory: ModelDirectory, tmp_path: Path) -> None:
    _require_linker()
    library = tmp_path / "arm64.so"
    code, out, _ = run(
        "compile", tiny_directory.path, "--plan", "off", "--device", "arm64", "-o", library
    )
    assert (code, out.strip()) == (0, str(library))
    header = library.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == AARCH64
    code, _, err = run("chat", tiny_directory.path, "--model-lib", library, "--prompt", "hello")
    assert code == 2
    assert "expected a model library for the machine it is to run on" in err


@pytest.fixture
def arm64_library(tiny_directory: ModelDirectory, tmp_path: Path) -> Path:
    """The dense library of `tiny_directory` for ARM; before a test has a cache of its own."""
    _require_linker()
    library = tmp_path / "arm64.so"
    return compile_library(tiny_directory, None, device="arm64", output=library).path


@pytest.mark.arm
def test_chat_on_a_device(
    run: Run,
    tiny_directory: ModelDirectory,
    tiny_library: Path,
    arm64_library: Path,
    own_cache: Path,
) -> None:
    """Files are sent there; greedily, the answer is this machine's."""
    command = ("chat", tiny_directory.path, "--prompt", "hello", "--max-tokens", 4)
    code, here, _ = run(*command, "--temperature", 0, "--model-lib", tiny_library)
    assert code == 0
    code, out, _ = run("device", "arm", "start")
    try:
        assert code == 0
        device = ("--model-lib", arm64_library, "--rpc", out.strip())
        code, there, error = run(*command, "--temperature", 0, *device)
    finally:
        run("device", "arm", "stop")
    assert (code, there) == (0, here), error


@pytest.mark.parametrize("triple", ["", "-android"], ids=["linux", "android"])
@pytest.mark.parametrize(
    ("device", "expected", "instruction"),
    [("arm64", NEON_DOTPROD, "sdot"), ("arm64-i8mm", NEON_I8MM, "smmla")],
)
def test_kernels_for_phones_have_their_products(
    device: str, expected: CpuFeatures, instruction: str, triple: str
) -> None:
    target = resolve_target(device + triple)
    features = cpu_features(target)
    assert features == expected
    spec = AttentionSpec(num_q_heads=3, num_kv_heads=1, head_dim=64, sm_scale=0.125)
    module = build_kernels({"pilot": pilot_scores(spec, features)}, target)
    assembly = module.mod.inspect_source("asm")
    assert [name for name in ("sdot", "smmla") if f"{name}\t" in assembly] == [instruction]


def test_android_takes_the_ndk(
    run: Run, tiny_directory: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NDK_VARIABLE, raising=False)
    monkeypatch.setenv("SHADOWATTN_CACHE", str(tmp_path))
    library = tmp_path / "android.so"
    code, _, err = run(
        "compile", tiny_directory.path, "--plan", "off", "--device", "arm64-android", "-o", library
    )
    assert code == 2
    assert f"{NDK_VARIABLE} to name its compiler" in err
    assert not library.exists()


def _require_linker() -> None:
    try:
        cross_linker("aarch64-linux-gnu")
    except CompileError as missing:
        pytest.skip(f"{missing}; `make arm-device` installs it")


def test_no_linker_for_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CompileError, match=f"{LINKERS[0]}.*apt-get install binutils-aarch64"):
        cross_linker("aarch64-linux-gnu")
    with pytest.raises(CompileError, match="can't link for riscv64-linux-gnu"):
        cross_linker("riscv64-linux-gnu")
