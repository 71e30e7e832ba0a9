"""`bench prefill` and `bench decode` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shadowattn_tvm.bench.model_document import DecodeBench, PrefillBench
from shadowattn_tvm.weights import ModelDirectory
from tests.cli.conftest import Run


@pytest.mark.slow
def test_prefill_writes_prints_and_draws(
    run: Run, tiny_directory: ModelDirectory, plan_file: Path, tmp_path: Path
) -> None:
    result, plot = tmp_path / "prefill.json", tmp_path / "prefill.svg"
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question. " * 10)
    code, out, err = run(
        *("bench", "prefill", tiny_directory.path, "--plan", plan_file, "--corpus", text),
        *("--prompt-tokens", 24, "--prompt-tokens", 60, "--rounds", 1, "--threads", 1),
        *("--without", "torch", "--json", result, "--plot", plot),
    )
    assert code == 0, err
    record = PrefillBench.model_validate(json.loads(result.read_text()))
    assert [(row.contender, row.prompt_tokens) for row in record.rows] == [
        (name, tokens) for tokens in (24, 60) for name in ("dense", "shadow")
    ]
    assert {each.contender for each in record.skipped} == {"torch", "llama_cpp"}
    assert record.text == (str(text),)
    assert "skipped torch: not asked for" in out
    assert "skipped llama_cpp: no file given" in out
    assert out.count("shadow") == 2
    assert "<svg" in plot.read_text()


@pytest.mark.slow
def test_decode_writes_and_prints(
    run: Run, tiny_directory: ModelDirectory, plan_file: Path, tmp_path: Path
) -> None:
    result = tmp_path / "decode.json"
    code, out, err = run(
        *("bench", "decode", tiny_directory.path, "--plan", plan_file, "--context", 40),
        *("--tokens", 4, "--rounds", 2, "--threads", 1, "--json", result),
        *("--without", "torch", "--without", "shadow"),
    )
    assert code == 0, err
    record = DecodeBench.model_validate(json.loads(result.read_text()))
    (row,) = record.rows
    assert (row.contender, row.context, row.tokens, row.rounds) == ("dense", 40, 4, 2)
    assert "tokens/s" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prefill", "--prompt-tokens", "257"], "256 tokens of the model's context window"),
        (["decode", "--context", "250", "--tokens", "7"], "256 tokens of the model's context"),
        (["prefill", "--prompt-tokens", "9", "--plan", "off"], "got 'off'"),
        (["prefill", "--prompt-tokens", "9", "--plot", "p.gif"], "ending in .png or .svg"),
        (["prefill", "--prompt-tokens", "9", "--gguf", "missing"], "missing"),
        (["prefill", "--prompt-tokens", "9", "--without", "dense"], "dense"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    run: Run,
    tiny_directory: ModelDirectory,
    plan_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *options = arguments
    plan = [] if "--plan" in options else ["--plan", plan_file]
    code, out, err = run("bench", name, tiny_directory.path, *plan, *options)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""
