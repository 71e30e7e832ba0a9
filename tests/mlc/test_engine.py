"""`mlc_llm chat`, `serve` and `package` with a plan: which library MLC's own functions are given.

Those are recorded, not run: they start MLC's C++ engine, or the NDK.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowattn_tvm.config.paths import CACHE_VARIABLE
from shadowattn_tvm.errors import ConfigError, LibraryError
from shadowattn_tvm.mlc import library_cache, run
from shadowattn_tvm.mlc.report import CompileReport
from shadowattn_tvm.plan import Plan
from shadowattn_tvm.runtime.library_file import require_library
from tests.mlc.conftest import MlcModel

pytestmark = [
    pytest.mark.mlc,
    pytest.mark.parametrize("mlc_model", ["llama"], indirect=True),
]

REPORT = CompileReport(
    output="library.so",
    target="llvm",
    quantization="q0f32",
    plan_name=None,
    plan_hash=None,
    weights_checked=False,
    num_layers=1,
    num_q_heads=1,
    num_kv_heads=1,
    head_dim=16,
    kv_dtype="float32",
    swapped=(),
    added=(),
)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, mlc_llm: None) -> list[dict[str, Any]]:
    """The arguments MLC's functions were called with; they do nothing else."""
    calls: list[dict[str, Any]] = []
    for name in ("chat", "serve", "package"):
        module = importlib.import_module(f"mlc_llm.cli.{name}")
        monkeypatch.setattr(module, name, lambda **arguments: calls.append(arguments))
    return calls


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The arguments of all compilations, which leave an empty file; into a cache of this test."""
    commands: list[list[str]] = []

    def compile_with(argv: list[str], plan: Plan | None) -> CompileReport:
        commands.append([word for word in argv[:-2] if word != str(tmp_path)])
        Path(argv[-1]).write_bytes(b"library")
        return REPORT

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(library_cache, "compile_with", compile_with)
    return commands


def test_chat_gets_a_library_that_runs(
    mlc_model: MlcModel,
    called: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The whole way, once: compiled into the cache, found there the second time."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    path = str(mlc_model.directory.path)
    limits = ["--overrides", "context_window_size=128;prefill_chunk_size=16"]
    command = ["chat", path, "--device", "cpu", *limits, "--shadow-attn", str(mlc_model.plan_file)]
    run(command)
    library = Path(called[0]["model_lib"])
    assert (called[0]["model"], called[0]["device"]) == (path, "cpu")
    require_library(library, mlc_model.plan)
    written = library.stat().st_mtime_ns
    run(command)
    assert called[1]["model_lib"] == str(library)
    assert library.stat().st_mtime_ns == written


def test_a_library_for_every_difference(
    mlc_model: MlcModel, called: list[dict[str, Any]], compiled: list[list[str]]
) -> None:
    path, plan = str(mlc_model.directory.path), str(mlc_model.plan_file)
    common = [path, "--device", "cpu"]
    commands = [
        ["chat", *common, "--shadow-attn", plan],
        ["chat", *common, "--shadow-attn", "off"],
        ["chat", *common, "--shadow-attn", plan, "--overrides", "context_window_size=64"],
        ["chat", *common, "--shadow-attn", plan, "--overrides", "opt=O0"],
        ["serve", *common, "--shadow-attn", plan, "--overrides", "max_num_sequence=2"],
    ]
    for command in commands:
        run(command)
    assert len({call["model_lib"] for call in called}) == len(commands) == len(compiled)
    assert compiled[2][3:] == ["--overrides", "context_window_size=64", "--opt", "O2"]
    assert compiled[3][3:] == ["--overrides", "", "--opt", "O0"]
    assert compiled[4][3:] == ["--overrides", "max_batch_size=2", "--opt", "O2"]
    for command in commands:
        run(command)
    assert len(compiled) == len(commands)


def test_a_named_library_is_checked(
    mlc_model: MlcModel,
    called: list[dict[str, Any]],
    compile_for: Callable[[Path | str], Path],
    compiled: list[list[str]],
) -> None:
    path, plan = str(mlc_model.directory.path), str(mlc_model.plan_file)
    shadow, dense = compile_for(plan), compile_for("off")
    for command in ("chat", "serve"):
        run([command, path, "--model-lib", str(shadow), "--shadow-attn", plan])
        assert called[-1]["model_lib"] == str(shadow)
        with pytest.raises(LibraryError, match="compiled without shadowAttn"):
            run([command, path, "--model-lib", str(dense), "--shadow-attn", plan])
        with pytest.raises(LibraryError, match="asks for one compiled without"):
            run([command, path, "--model-lib", str(shadow), "--shadow-attn", "off"])
        with pytest.raises(LibraryError, match="can't read the library"):
            run([command, path, "--model-lib", "none.so", "--shadow-attn", plan])
    assert len(called) == 2
    assert not compiled


def test_without_the_flag_nothing_is_compiled_or_checked(
    mlc_model: MlcModel, called: list[dict[str, Any]], compiled: list[list[str]]
) -> None:
    for command in ("chat", "serve"):
        run([command, str(mlc_model.directory.path)])
        assert called[-1]["model_lib"] is None
    assert not compiled


def test_a_model_that_is_not_there(
    mlc_model: MlcModel, called: list[dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="expected a model directory"):
        run(["chat", str(tmp_path / "none"), "--shadow-attn", "off"])


def package_file(folder: Path, models: Any, **more: Any) -> Path:
    path = folder / "mlc-package-config.json"
    path.write_text(json.dumps({"device": "android", "model_list": models, **more}))
    return path


def test_package_names_the_library_of_every_model(
    mlc_model: MlcModel,
    called: list[dict[str, Any]],
    compiled: list[list[str]],
    compile_for: Callable[[Path | str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = str(mlc_model.directory.path)
    shadow = compile_for(mlc_model.plan_file)
    models = [
        {"model": path, "model_id": "a", "overrides": {"context_window_size": 64}},
        {"model": path, "model_id": "b", "model_lib": "tiny_q0f32"},
        {"model": path, "model_id": "c", "model_lib": "mine"},
    ]
    named = {"mine": str(shadow)}
    config = package_file(tmp_path, models, model_lib_path_for_prepare_libs=named)
    given: list[dict[str, Any]] = []
    package = importlib.import_module("mlc_llm.cli.package")

    def read(package_config_path: Path, **others: Any) -> None:
        given.append(json.loads(package_config_path.read_text()))

    monkeypatch.setattr(package, "package", read)
    arguments = ["--package-config", str(config), "--mlc-llm-source-dir", str(tmp_path)]
    output = ["-o", str(tmp_path / "dist"), "--shadow-attn", str(mlc_model.plan_file)]
    run(["package", *arguments, *output])
    (changed,) = given
    names = [entry["model_lib"] for entry in changed["model_list"]]
    libraries = changed["model_lib_path_for_prepare_libs"]
    assert names[1:] == ["tiny_q0f32", "mine"]
    assert set(names) == set(libraries)
    assert libraries["mine"] == str(shadow)
    assert all(Path(libraries[name]).suffix == ".tar" for name in names[:2])
    prefixes = [command[command.index("--system-lib-prefix") + 1] for command in compiled]
    assert prefixes == [f"{name}_" for name in names[:2]]
    assert compiled[0][1:5] == ["--device", "android", "--overrides", "context_window_size=64"]
    assert json.loads(config.read_text())["model_list"] == models  # the user's own is untouched


def test_package_refuses_what_it_cannot_read(
    mlc_model: MlcModel, called: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = ["--mlc-llm-source-dir", str(tmp_path), "-o", str(tmp_path / "dist")]
    for models, message in (("none", "expected a list 'model_list'"), ([{}], "a string 'model'")):
        config = package_file(tmp_path, models)
        with pytest.raises(ConfigError, match=message):
            run(["package", "--package-config", str(config), *source, "--shadow-attn", "off"])
    assert not called
