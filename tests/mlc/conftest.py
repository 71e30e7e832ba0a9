"""Models for mlc_llm, and mlc_llm itself where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from shadowattn_tvm.mlc import SOURCE_VARIABLE, is_installed, run
from shadowattn_tvm.mlc.installation import import_mlc_llm
from shadowattn_tvm.plan import Plan, save_plan
from shadowattn_tvm.weights import ModelDirectory, open_model_directory
from tests.calibrate.tiny_model import tiny_config, write_tiny_model
from tests.mlc.hugging_face_directory import write_hugging_face
from tests.plan.tiny_plan import make_plan

LIMITS = "context_window_size=256;prefill_chunk_size=16;max_batch_size=4"


@pytest.fixture(scope="session")
def mlc_llm() -> None:
    """mlc_llm, imported; skips without one."""
    if not is_installed():
        pytest.skip(
            f"needs MLC-LLM, which no public index offers: clone github.com/mlc-ai/mlc-llm and "
            f"name the folder in {SOURCE_VARIABLE}"
        )
    import_mlc_llm()


@dataclass(frozen=True)
class MlcModel:
    """A model directory converted by mlc_llm, a plan for it, and the checkpoint it came from."""

    directory: ModelDirectory
    plan: Plan
    plan_file: Path
    hugging_face: Path


@pytest.fixture(scope="session", params=["llama", "qwen2"])
def mlc_model(
    request: pytest.FixtureRequest, mlc_llm: None, tmp_path_factory: pytest.TempPathFactory
) -> MlcModel:
    """Random weights of each family: converted by `shadowattn mlc_llm convert_weight`, described
    by `gen_config`."""
    folder = tmp_path_factory.mktemp(f"mlc-{request.param}")
    config = tiny_config(qkv_bias=request.param == "qwen2", vocab_size=320)
    (folder / "ours").mkdir()
    ours = write_tiny_model(folder / "ours", config)
    checkpoint = write_hugging_face(ours, folder / "hf", end_token="</s>")
    converted = folder / "mlc"
    common = (str(checkpoint), "--quantization", "q0f32", "-o", str(converted))
    limits = ("--prefill-chunk-size", "16", "--context-window-size", "256")
    run(["convert_weight", *common, "--device", "cpu"])
    run(["gen_config", *common, "--conv-template", "LM", *limits])
    directory = open_model_directory(converted)
    plan = make_plan(directory)
    plan_file = folder / "plan.json"
    save_plan(plan, plan_file)
    return MlcModel(directory, plan, plan_file, checkpoint)


def compile_with_mlc(model: Path, output: Path, plan: Path | str, *more: str) -> None:
    """`shadowattn mlc_llm compile` for this machine's CPU."""
    arguments = ("compile", str(model), "--device", "cpu", "-o", str(output))
    run([*arguments, "--overrides", LIMITS, "--shadow-attn", str(plan), *more])


@pytest.fixture(scope="session")
def compile_for(
    mlc_model: MlcModel, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path | str], Path]:
    """`shadowattn mlc_llm compile` of `mlc_model` for this machine's CPU, with a plan file or
    "off"; each library is made once."""
    folder = tmp_path_factory.mktemp("mlc-libraries")
    made: dict[str, Path] = {}

    def compiled(plan: Path | str) -> Path:
        if str(plan) not in made:
            output = folder / f"{len(made)}.so"
            report = f"--shadow-attn-report={output.with_suffix('.json')}"
            compile_with_mlc(mlc_model.directory.path, output, plan, report)
            made[str(plan)] = output
        return made[str(plan)]

    return compiled
