"""The command line: what goes right prints a path, what is the user's mistake exits with 2."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shadowattn_tvm.plan import Sharing, load_plan
from shadowattn_tvm.weights import ModelDirectory
from tests.cli.conftest import Run
from tests.weights.tiny import Tiny, write_gguf


def test_help_lists_the_flow_in_order(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    places = [out.index(f"│ {c} ") for c in ("fetch", "convert_weight", "calibrate", "compile")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "gpt-9000"], "smollm2-135m"),
        (["convert_weight", "none.gguf", "--quantization", "q0f32", "-o", "out"], "no checkpoint"),
        (["compile", "none", "--plan", "off", "-o", "lib.so"], "no model directory"),
        (["chat", "none"], "no model directory"),
        (["calibrate", "none", "-o", "plan.json"], "no model directory"),
        (["chat"], "Missing argument"),
        (["chat", "none", "--temperature", "hot"], "--temperature"),
        (["compile", "none", "-o", "lib.so"], "--plan"),
        (["improve"], "improve"),
    ],
)
def test_mistakes_exit_with_two_and_no_traceback(
    arguments: list[str],
    message: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_mistakes_about_a_model_name_what_was_expected(
    run: Run, tiny_directory: ModelDirectory, plan_file: Path, tmp_path: Path
) -> None:
    model, lib = tiny_directory.path, tmp_path / "lib.so"
    cases = [
        (["compile", model, "--plan", "r99", "-o", lib], "smollm2-135m-r20"),
        (["compile", model, "--plan", tmp_path / "no.json", "-o", lib], "shadowattn calibrate"),
        (["compile", model, "--plan", "smollm2-135m-r20", "-o", lib], "holds another model"),
        (["compile", model, "--plan", "off", "--device", "toaster", "-o", lib], "host"),
        (["compile", model, "--plan", "off", "--overrides", "x=1", "-o", lib], "KEY=VALUE"),
        (["calibrate", model, "--method", "magic", "-o", tmp_path / "p.json"], "uniform"),
        (["calibrate", model, "--ratio", "7", "-o", tmp_path / "p.json"], "7"),
        (["calibrate", model, "--ratio", "0.1", "-o", tmp_path / "p.json"], "dense"),
        (["calibrate", model, "--dense-layers", "x", "-o", tmp_path / "p.json"], "'0,1'"),
        (["calibrate", model, "--query-block", "7", "-o", tmp_path / "p.json"], "1, 8, 16"),
        (["calibrate", model, "--rest", "median", "-o", tmp_path / "p.json"], "dropped, mean"),
        (["calibrate", model, "--sigma", "1", "-o", tmp_path / "p.json"], "sigma"),
        (
            ["calibrate", model, "--ratios", plan_file, "-o", tmp_path / "p.json"],
            "expected a ratios file",
        ),
        (
            ["calibrate", model, "--ratios", "r.json", "--ratio", "1", "-o", tmp_path / "p.json"],
            "--ratio or --ratios",
        ),
        (
            ["calibrate", model, "--corpus", tmp_path / "no.txt", "-o", tmp_path / "p.json"],
            "no.txt",
        ),
        (["chat", model, "--model-lib", lib], "no model library"),
        (["chat", model, "--top-p", "2", "--prompt", "x"], "top_p"),
    ]
    for arguments, message in cases:
        code, _, err = run(*arguments)
        assert (code, message in err.replace("\n", " "), "Traceback" in err) == (2, True, False), (
            err
        )
    assert list(tmp_path.iterdir()) == [plan_file]


def test_calibrating_leaves_a_plan_and_nothing_else(
    run: Run, tiny_directory: ModelDirectory, tmp_path: Path
) -> None:
    (tmp_path / "text").mkdir()
    for name in ("one.txt", "two.txt"):
        (tmp_path / "text" / name).write_text(f"{name}: over the hills and far away. " * 30)
    output = tmp_path / "made" / "plan.json"
    code, out, err = run(
        *("calibrate", tiny_directory.path, "-o", output, "--method", "fisher", "--ratio", "0.4"),
        *("--corpus", tmp_path / "text" / "one.txt", "--corpus", tmp_path / "text"),
        *("--window-tokens", "128", "--num-windows", "3", "--k-min", "6"),
        *("--share-group", "--query-block", "8", "--center-keys", "--voters", "0.5"),
        *("--rest", "mean"),
    )
    assert (code, out) == (0, f"{output}\n")
    assert "of the past" in err
    assert [path.name for path in output.parent.iterdir()] == ["plan.json"]
    plan = load_plan(output)
    assert [document.name for document in plan.provenance.corpus] == ["one.txt", "two.txt"]
    assert plan.sharing == Sharing(gqa_group=True, query_block=8)
    assert plan.rest == "mean"
    assert (plan.pilot.center_keys, plan.pilot.score_bits, plan.k_min) == (True, 9, 6)
    assert {head.query_stride for layer in plan.layers for head in layer.heads} == {2}


def test_measurements_are_kept_when_asked_for(
    run: Run, tiny_directory: ModelDirectory, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("Over the hills and far away. " * 30)
    kept = tmp_path / "m.npz"
    common = (
        *("calibrate", tiny_directory.path, "--measurements", kept, "--k-min", "6"),
        *("--corpus", tmp_path / "text.txt", "--window-tokens", "128", "--num-windows", "1"),
    )
    assert run(*common, "--ratio", "0.5", "-o", tmp_path / "a.json")[0] == 0
    before = kept.read_bytes()
    assert run(*common, "--ratio", "0.7", "-o", tmp_path / "b.json")[0] == 0
    assert kept.read_bytes() == before  # nothing was measured again
    assert (
        load_plan(tmp_path / "b.json").past_fraction > load_plan(tmp_path / "a.json").past_fraction
    )


def test_convert_prints_the_directory_it_made(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "tiny.gguf"
    write_gguf(source, Tiny(), Tiny().weights())
    code, out, _ = run("convert_weight", source, "--quantization", "q4f32_1", "-o", tmp_path / "m")
    assert (code, out.strip()) == (0, str(tmp_path / "m"))
    assert json.loads((tmp_path / "m" / "mlc-chat-config.json").read_text())["quantization"] == (
        "q4f32_1"
    )


@pytest.mark.parametrize("quantization", ["q3f16_1", "", "Q0F32"])
def test_an_unknown_quantization_lists_the_known(
    quantization: str, run: Run, tmp_path: Path
) -> None:
    source = tmp_path / "tiny.gguf"
    write_gguf(source, Tiny(), Tiny().weights())
    code, _, err = run(
        "convert_weight", source, "--quantization", quantization, "-o", tmp_path / "m"
    )
    assert code == 2
    assert "q0f32" in err
    assert not (tmp_path / "m").exists()


def test_chat_answers_a_prompt_and_records_it(
    run: Run,
    tiny_directory: ModelDirectory,
    tiny_shadow_library: Path,
    plan_file: Path,
    tmp_path: Path,
) -> None:
    record = tmp_path / "record.json"
    code, out, err = run(
        "chat",
        tiny_directory.path,
        "--model-lib",
        tiny_shadow_library,
        "--shadow-attn",
        plan_file,
        "--prompt",
        "x" * 100,
        "--temperature",
        "0",
        "--max-tokens",
        "5",
        "--json",
        record,
    )
    assert code == 0
    document = json.loads(record.read_text())
    assert out.startswith(document["text"])
    assert len(document["prompt_token_ids"]) == 100
    assert len(document["output_token_ids"]) == 5
    stats = document["stats"]
    for name in ("ttft_ms", "prefill_tokens_per_s", "decode_tokens_per_s", "peak_memory_bytes"):
        assert stats[name] > 0
    assert 0.25 < stats["kept_fraction"] < 1.0
    assert "prefill:" in err


def test_chat_refuses_a_library_of_another_plan(
    run: Run, tiny_directory: ModelDirectory, tiny_library: Path, plan_file: Path
) -> None:
    chat = ("chat", tiny_directory.path, "--model-lib", tiny_library, "--prompt", "x")
    code, out, err = run(*chat, "--shadow-attn", plan_file)
    assert (code, out) == (2, "")
    assert "compiled without shadowAttn" in err


def test_a_prompt_longer_than_the_context_is_a_mistake(
    run: Run, tiny_directory: ModelDirectory, tiny_library: Path
) -> None:
    chat = ("chat", tiny_directory.path, "--model-lib", tiny_library)
    code, _, err = run(*chat, "--prompt", "x" * 300)
    assert code == 2
    assert "256" in err
    assert "300" in err


def conversation(
    library: Path, directory: Path, typed: bytes
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "shadowattn_tvm", "chat", directory, "--model-lib", library]
    return subprocess.run(
        [*command, "--max-tokens", "4", "--temperature", "0"],
        input=typed,
        capture_output=True,
        check=False,
        timeout=300,
    )


def test_the_conversation_survives_overflow_bad_bytes_and_unknown_commands(
    tiny_directory: ModelDirectory, tiny_library: Path
) -> None:
    typed = b"hello\n" + b"y" * 400 + b"\n\xff\xfe\n/nonsense\n/stats\nhello again\n/exit\n"
    result = conversation(tiny_library, tiny_directory.path, typed)
    assert result.returncode == 0, result.stderr
    out = result.stdout.decode()
    assert "256" in out  # the overflow says how much fits
    assert "UTF-8" in out
    assert "/help" in out
    assert "prefill:" in out
    assert b"Traceback" not in result.stdout + result.stderr


def test_ctrl_c_while_answering_goes_back_to_the_prompt(
    tiny_directory: ModelDirectory, tiny_library: Path
) -> None:
    command = [sys.executable, "-u", "-m", "shadowattn_tvm", "chat", str(tiny_directory.path)]
    process = subprocess.Popen(
        [*command, "--model-lib", str(tiny_library)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"tell me everything\n")
    process.stdin.flush()
    shown = b""
    deadline = time.monotonic() + 120
    while not shown.partition(b">>> ")[2] and time.monotonic() < deadline:
        shown += os.read(process.stdout.fileno(), 1 << 10)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(b"/stats\n/exit\n", timeout=120)
    assert process.returncode == 0, err
    assert b"prefill:" in shown + out
    assert b"Traceback" not in out + err


def test_stdout_is_only_the_answer(
    run: Run, tiny_directory: ModelDirectory, tiny_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    chat = ("chat", tiny_directory.path, "--model-lib", tiny_library, "--prompt", "abc")
    code, out, _ = run(*chat, "--temperature", "0", "--max-tokens", "3")
    assert code == 0
    assert "prefill:" not in out
