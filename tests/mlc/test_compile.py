"""`mlc_llm compile` with a plan, against mlc_llm's real source: what is in the library, and what
comes out of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.cli import main
from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.evaluate import load_record
from shadowattn_tvm.plan import plan_hash, save_plan
from shadowattn_tvm.runtime.library_file import read_metadata, require_library
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import convert_weight
from tests.mlc.conftest import MlcModel, compile_with_mlc
from tests.plan.tiny_plan import make_plan

pytestmark = pytest.mark.mlc

PROMPT = np.random.default_rng(5).integers(0, 256, 150).tolist()
OUR_LIMITS = "context_window_size=256;prefill_chunk_size=16"
WITHOUT_US = Path(__file__).parent / "run_without_us.py"


def greedy(session: Session, num_tokens: int = 12) -> list[int]:
    tokens = [int(session.prefill(PROMPT).argmax())]
    while len(tokens) < num_tokens:
        tokens.append(int(session.decode(tokens[-1]).argmax()))
    return tokens


def logits(mlc_model: MlcModel, library: Path) -> np.ndarray:
    return np.asarray(Session(mlc_model.directory, library).prefill(PROMPT))


def test_slots_hold_our_kernels_and_the_report_says_so(
    mlc_model: MlcModel, compile_for: Callable[[Path | str], Path]
) -> None:
    library = compile_for(mlc_model.plan_file)
    (report,) = json.loads(library.with_suffix(".json").read_text())["libraries"]
    swapped = {kernel["slot"]: kernel["after"] for kernel in report["swapped"]}
    assert swapped == {
        "append": "shadowattn_append",
        "ragged_prefill": "shadowattn_dense_ragged_prefill",
        "paged_prefill": "shadowattn_paged_prefill",
        "decode": "shadowattn_dense_paged_decode",
        "merge_states": "shadowattn_merge_states",
        "split_rotary": "shadowattn_split_rotary",
    }
    assert report["plan_hash"] == plan_hash(mlc_model.plan)
    assert report["weights_checked"]
    contents = library.read_bytes()
    assert all(name.encode() in contents for name in swapped.values())
    assert b"batch_prefill_paged_kv_cpu\0" not in contents


def test_metadata_keeps_mlcs_and_has_ours(
    mlc_model: MlcModel, compile_for: Callable[[Path | str], Path]
) -> None:
    library = compile_for(mlc_model.plan_file)
    session = Session(mlc_model.directory, library)
    assert session.metadata.shadow_attn is not None
    assert session.metadata.shadow_attn.plan_hash == plan_hash(mlc_model.plan)
    assert session.metadata == read_metadata(library)
    dense = Session(mlc_model.directory, compile_for("off")).metadata
    assert dense.shadow_attn is None
    assert dense.params == session.metadata.params


def test_libraries_agree_with_our_own(
    mlc_model: MlcModel, compile_for: Callable[[Path | str], Path]
) -> None:
    """MLC's converted directory through MLC's compiler and through ours; dense and sparse."""
    for plan, name in ((mlc_model.plan, mlc_model.plan_file), (None, "off")):
        ours = compile_library(mlc_model.directory, plan, overrides=OUR_LIMITS).path
        theirs = compile_for(name)
        np.testing.assert_allclose(
            logits(mlc_model, theirs), logits(mlc_model, ours), rtol=1e-4, atol=1e-4
        )
    assert not np.allclose(
        logits(mlc_model, compile_for(mlc_model.plan_file)),
        logits(mlc_model, compile_for("off")),
        atol=1e-3,
    )


def test_ratio_one_gives_the_dense_tokens(
    mlc_model: MlcModel, compile_for: Callable[[Path | str], Path], tmp_path: Path
) -> None:
    everything = tmp_path / "everything.json"
    save_plan(make_plan(mlc_model.directory, keep_ratio=1.0), everything)
    whole = greedy(Session(mlc_model.directory, compile_for(everything)))
    assert whole == greedy(Session(mlc_model.directory, compile_for("off")))


@pytest.mark.parametrize("mlc_model", ["llama"], indirect=True)
def test_sparse_decode(
    mlc_model: MlcModel, compile_for: Callable[[Path | str], Path], tmp_path: Path
) -> None:
    """With the shadow of K in the cache's pages."""
    plan = mlc_model.plan.model_copy(update={"decode": "sparse"})
    save_plan(plan, tmp_path / "sparse.json")
    ours = compile_library(mlc_model.directory, plan, overrides=OUR_LIMITS).path
    theirs = compile_for(tmp_path / "sparse.json")
    assert b"shadowattn_sparse_paged_decode" in theirs.read_bytes()
    assert greedy(Session(mlc_model.directory, theirs)) == greedy(
        Session(mlc_model.directory, ours)
    )


def test_a_library_runs_where_only_tvm_is_imported(
    mlc_model: MlcModel, compile_for: Callable[[Path | str], Path]
) -> None:
    """No Python of ours is called at run time: there is none in that process."""
    library = compile_for(mlc_model.plan_file)
    arguments = [str(library), str(mlc_model.directory.path), json.dumps(PROMPT)]
    output = subprocess.run(
        [sys.executable, "-I", str(WITHOUT_US), *arguments],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert json.loads(output) == greedy(Session(mlc_model.directory, library))


def test_chat_and_eval_drive_it(
    mlc_model: MlcModel,
    compile_for: Callable[[Path | str], Path],
    tiny_texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Our own commands, on libraries of MLC's with a plan and without."""
    path, plan = str(mlc_model.directory.path), str(mlc_model.plan_file)
    shadow, dense = compile_for(mlc_model.plan_file), compile_for("off")

    def ours(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return int(ended.value.code or 0)

    answer = ("--prompt", "a key", "--max-tokens", "3", "--temperature", "0")
    assert ours("chat", path, "--model-lib", str(shadow), "--shadow-attn", plan, *answer) == 0
    assert ours("chat", path, "--model-lib", str(dense), "--shadow-attn", "off", *answer) == 0
    assert ours("chat", path, "--model-lib", str(dense), "--shadow-attn", plan, *answer) == 2
    assert "compiled without shadowAttn" in capsys.readouterr().err
    libraries = ("--model-lib", str(shadow), "--model-lib", str(dense))
    sizes = ("--context", "256", "--prefill-chunk", "16", "--windows", "4", "--min-windows", "4")
    result = tmp_path / "result.json"
    task = ("--tasks", "ppl", "--corpus", str(tiny_texts), "--json", str(result))
    ended = ours("eval", path, "--plan", plan, *libraries, *sizes, *task)
    if mlc_model.directory.architecture.qkv_bias:  # MLC's Qwen2 has no `get_logits`
        assert ended == 2
        assert "the library has no function" in capsys.readouterr().err
        return
    assert ended == 0
    own = tmp_path / "own.json"
    task = (*task[:-1], str(own))
    assert ours("eval", path, "--plan", plan, *sizes, *task) == 0
    theirs, mine = (load_record(file).results.ppl for file in (result, own))
    assert theirs is not None
    assert mine is not None
    assert theirs.shadow == pytest.approx(mine.shadow, rel=1e-3)
    assert theirs.dense == pytest.approx(mine.dense, rel=1e-3)


def test_our_directory_compiles_with_mlc(
    mlc_model: MlcModel, mlc_llm: None, tmp_path: Path
) -> None:
    """The other way round: a directory of ours in `mlc_llm compile`."""
    for quantization in ("q0f32", "q4f32_1"):
        ours = convert_weight(mlc_model.hugging_face, quantization, tmp_path / quantization)
        library = tmp_path / f"{quantization}.so"
        plan_file = tmp_path / f"{quantization}.json"
        plan = make_plan(ours)
        save_plan(plan, plan_file)
        compile_with_mlc(ours.path, library, plan_file)
        require_library(library, plan)
        own = compile_library(ours, plan, overrides=OUR_LIMITS).path
        np.testing.assert_allclose(
            Session(ours, library).prefill(PROMPT),
            Session(ours, own).prefill(PROMPT),
            rtol=1e-4,
            atol=1e-4,
        )
