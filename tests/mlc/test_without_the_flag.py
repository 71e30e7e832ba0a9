"""Without `--shadow-attn` it is mlc_llm's own command line, to the byte."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from shadowattn_tvm.mlc import run
from tests.mlc.conftest import MlcModel

pytestmark = pytest.mark.mlc


@pytest.mark.parametrize(
    "subcommand", ["compile", "convert_weight", "gen_config", "chat", "serve", "package"]
)
def test_every_argument_arrives_untouched(
    subcommand: str, mlc_llm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = importlib.import_module(f"mlc_llm.cli.{subcommand}")
    calls: list[tuple[list[str], list[str]]] = []
    monkeypatch.setattr(command, "main", lambda argv: calls.append((argv, list(sys.argv))))
    arguments = ["-x", "a b", "--overrides", "k=1;l=2", "--", "--shadow-attn", "", "--opt=O2"]
    run([subcommand, *arguments])
    ((argv, whole),) = calls
    assert argv == arguments
    assert whole[1:] == [subcommand, *arguments]


def test_nothing_is_swapped_while_it_compiles(
    mlc_llm: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """(Stock MLC can't finish a CPU library with this TVM: see docs/upstream/cpu-gemv.md.)"""
    command = importlib.import_module("mlc_llm.cli.compile")
    interface = importlib.import_module("mlc_llm.interface.compile")
    passes = importlib.import_module("mlc_llm.compiler_pass.pipeline")
    stock = importlib.import_module("mlc_llm.compiler_pass.dispatch_kv_cache_creation")
    seen: list[bool] = []

    def main(argv: list[str]) -> None:
        seen.append(command.compile is interface.compile)
        seen.append(passes.DispatchKVCacheCreation is stock.DispatchKVCacheCreation)

    monkeypatch.setattr(command, "main", main)
    run(["compile", "model", "-o", str(tmp_path / "library.so")])
    assert seen == [True, True]


@pytest.mark.parametrize("mlc_model", ["llama"], indirect=True)
def test_converted_files_are_the_same(mlc_model: MlcModel, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    arguments = [str(mlc_model.hugging_face), "--quantization", "q4f16_1", "--device", "cpu", "-o"]
    run(["convert_weight", *arguments, str(ours)])
    importlib.import_module("mlc_llm.cli.convert_weight").main([*arguments, str(theirs)])
    names = sorted(path.name for path in theirs.iterdir())
    assert names == sorted(path.name for path in ours.iterdir())
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
