"""SmolLM2-135M-Instruct through mlc_llm's real source: converted, compiled, held against our own
library of the same weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.corpora import read_documents
from shadowattn_tvm.mlc import run
from shadowattn_tvm.plan import Plan, find_plan, save_plan
from shadowattn_tvm.runtime.machine import load_weights
from shadowattn_tvm.runtime.scoring import score_tokens
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.runtime.tokenizer import ModelTokenizer
from shadowattn_tvm.weights import ModelDirectory, open_model_directory
from tests.mlc.hugging_face_directory import write_hugging_face

pytestmark = [pytest.mark.mlc, pytest.mark.model, pytest.mark.slow]

LIMITS = "context_window_size=2048;prefill_chunk_size=512"
WINDOW_TOKENS = 1536
MAX_CPU_S = 180.0
PLAN_NAME = "smollm2-135m-r20"


@dataclass(frozen=True)
class Converted:
    """MLC's conversion, and its libraries by plan."""

    directory: ModelDirectory
    library: Callable[[str], Path]


@pytest.fixture(scope="module", params=["q0f32", "q4f32_1", "q4f16_1"])
def converted(
    request: pytest.FixtureRequest,
    mlc_llm: None,
    smollm2_dir: Callable[[str], ModelDirectory],
    tmp_path_factory: pytest.TempPathFactory,
) -> Converted:
    folder = tmp_path_factory.mktemp(f"smollm2-mlc-{request.param}")
    checkpoint = write_hugging_face(smollm2_dir("q0f32"), folder / "hf")
    common = (str(checkpoint), "--quantization", request.param, "-o", str(folder / "mlc"))
    started = time.process_time()
    run(["convert_weight", *common, "--device", "cpu"])
    run(["gen_config", *common, "--conv-template", "chatml"])
    assert time.process_time() - started < MAX_CPU_S

    @cache
    def library(plan: str) -> Path:
        output = folder / f"{Path(plan).stem}.so"
        arguments = ("compile", str(folder / "mlc"), "--device", "cpu", "-o", str(output))
        started = time.process_time()
        run([*arguments, "--overrides", LIMITS, "--shadow-attn", plan])
        assert time.process_time() - started < MAX_CPU_S
        return output

    return Converted(open_model_directory(folder / "mlc"), library)


@pytest.fixture(scope="module")
def token_ids(converted: Converted) -> list[int]:
    """English prose that is on every machine."""
    tokenizer = ModelTokenizer.from_directory(converted.directory.path)
    text = next(d.text for d in read_documents(["pydoc"]) if len(d.text) > 20 * WINDOW_TOKENS)
    return list(tokenizer.encode(text))[:WINDOW_TOKENS]


def greedy(session: Session, prompt: list[int]) -> list[int]:
    tokens = [int(session.prefill(prompt).argmax())]
    while len(tokens) < 16:
        tokens.append(int(session.decode(tokens[-1]).argmax()))
    return tokens


def test_perplexity_is_our_own_librarys(converted: Converted, token_ids: list[int]) -> None:
    plan = find_plan(PLAN_NAME)
    ours = compile_library(converted.directory, plan, overrides=LIMITS).path
    weights = load_weights(converted.directory)
    own, theirs = (
        score_tokens(Session(converted.directory, path, weights=weights), token_ids).mean_nll
        for path in (ours, converted.library(PLAN_NAME))
    )
    assert abs(theirs - own) < 1e-3  # nats: a thousandth of the perplexity


def test_ratio_one_gives_the_dense_tokens(
    converted: Converted, token_ids: list[int], tmp_path: Path
) -> None:
    everything = tmp_path / "everything.json"
    plan = find_plan(PLAN_NAME)
    assert plan is not None
    save_plan(_keeping_everything(plan), everything)
    weights = load_weights(converted.directory)
    whole, dense = (
        greedy(Session(converted.directory, converted.library(name), weights=weights), token_ids)
        for name in (str(everything), "off")
    )
    assert whole == dense


def _keeping_everything(plan: Plan) -> Plan:
    layers = tuple(
        layer.model_copy(
            update={
                "heads": tuple(head.model_copy(update={"keep_ratio": 1.0}) for head in layer.heads)
            }
        )
        for layer in plan.layers
    )
    return plan.model_copy(update={"layers": layers})
