"""What can't be compiled with shadowAttn is refused before anything is compiled: the reasons."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tvm
from tvm.relax.frontend.nn.llm.kv_cache import RopeMode

from shadowattn_tvm.errors import CompileError, PlanError, ShadowAttnError
from shadowattn_tvm.mlc import SOURCE_VARIABLE, run
from shadowattn_tvm.mlc.geometry import _require_plain
from shadowattn_tvm.mlc.kernels import kernel_set
from shadowattn_tvm.plan import save_plan
from tests.calibrate.tiny_model import tiny_config, write_tiny_model
from tests.mlc.conftest import MlcModel, compile_with_mlc
from tests.plan.tiny_plan import make_plan

PLAIN = {
    "attn_kind": "mha",
    "qk_head_dim": 64,
    "v_head_dim": 64,
    "rope_mode": RopeMode.NORMAL,
    "enable_disaggregation": False,
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attn_kind": "mla"}, r"multi-head latent attention \(MLA\)"),
        ({"attn_kind": ["mha", "mha_sliding", "mha"]}, "has sliding-window attention"),
        ({"v_head_dim": 128}, "have 64 and 128"),
        ({"rope_mode": RopeMode.INLINE}, r"RopeMode\.INLINE"),
        ({"enable_disaggregation": True}, "disaggregation"),
    ],
)
def test_attention_of_another_kind(changes: dict[str, Any], reason: str) -> None:
    _require_plain(PLAIN)
    with pytest.raises(CompileError, match=reason):
        _require_plain(PLAIN | changes)


def test_targets_without_kernels() -> None:
    cuda = tvm.target.Target("nvidia/geforce-rtx-3070")
    with pytest.raises(CompileError, match="no shadowAttn kernels for 'cuda' targets"):
        kernel_set(cuda, dense=False)
    assert not kernel_set(cuda, dense=True).instead


def test_subcommands_without_libraries() -> None:
    with pytest.raises(ShadowAttnError, match="--shadow-attn is for compile, chat, serve, package"):
        run(["convert_weight", "--shadow-attn", "off"])
    with pytest.raises(ShadowAttnError, match="got no subcommand"):
        run(["--shadow-attn", "off"])


def test_unknown_plans() -> None:
    with pytest.raises(PlanError, match=r"expected a \.json file, one of the shipped plans"):
        run(["compile", "model", "--shadow-attn", "no-such-plan"])


@pytest.mark.parametrize(
    "entry", [["-m", "shadowattn_tvm.mlc"], ["-m", "shadowattn_tvm", "mlc_llm"]]
)
def test_exit_codes(entry: list[str]) -> None:
    """One message, exit code 2, no traceback."""
    arguments = ["compile", "model", "--shadow-attn"]
    done = subprocess.run(
        [sys.executable, *entry, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "expected a plan file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.mlc
@pytest.mark.parametrize("mlc_model", ["llama"], indirect=True)
class TestRealSource:
    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            ("sliding_window_size=64", "a sliding window"),
            ("tensor_parallel_shards=2", "tensor parallelism"),
        ],
    )
    def test_limits(self, mlc_model: MlcModel, tmp_path: Path, limits: str, reason: str) -> None:
        library = tmp_path / "library.so"
        arguments = ["--device", "cpu", "-o", str(library), "--overrides", limits]
        plan = ["--shadow-attn", str(mlc_model.plan_file)]
        with pytest.raises(CompileError, match=reason):
            run(["compile", str(mlc_model.directory.path), *arguments, *plan])
        assert not library.exists()

    @pytest.mark.parametrize("quantization", ["q3f16_1", "q4f16_0"])
    def test_quantizations(self, mlc_model: MlcModel, tmp_path: Path, quantization: str) -> None:
        library = tmp_path / "library.so"
        with pytest.raises(CompileError, match="expected one of the quantizations q0f32"):
            compile_with_mlc(
                mlc_model.directory.path, library, "off", "--quantization", quantization
            )
        assert not library.exists()

    def test_a_plan_of_another_model(self, mlc_model: MlcModel, tmp_path: Path) -> None:
        (tmp_path / "shape").mkdir()
        of_another_shape = write_tiny_model(tmp_path / "shape", tiny_config(num_hidden_layers=2))
        plan_file = tmp_path / "plan.json"
        library = tmp_path / "library.so"
        save_plan(make_plan(of_another_shape), plan_file)
        with pytest.raises(PlanError, match="the plan is for another model: expected"):
            compile_with_mlc(mlc_model.directory.path, library, plan_file)
        other = mlc_model.plan.model.model_copy(update={"fingerprint": "0" * 64})
        save_plan(mlc_model.plan.model_copy(update={"model": other}), plan_file)
        with pytest.raises(PlanError, match="holds another model"):
            compile_with_mlc(mlc_model.directory.path, library, plan_file)
        assert not library.exists()

    def test_a_prefix_that_tvm_fails_on(self, mlc_model: MlcModel, tmp_path: Path) -> None:
        arguments = ["--device", "android", "-o", str(tmp_path / "library.tar")]
        prefix = ["--system-lib-prefix", "abc_", "--shadow-attn", "off"]
        with pytest.raises(CompileError, match="at least 8 characters"):
            run(["compile", str(mlc_model.directory.path), *arguments, *prefix])

    def test_nothing_of_mlcs_stays_changed(
        self, mlc_model: MlcModel, tmp_path: Path, compile_for: Callable[[Path | str], Path]
    ) -> None:
        command = importlib.import_module("mlc_llm.cli.compile")
        passes = importlib.import_module("mlc_llm.compiler_pass.pipeline")
        interface = importlib.import_module("mlc_llm.interface.compile")
        dispatch = importlib.import_module("mlc_llm.compiler_pass.dispatch_kv_cache_creation")
        low_batch = importlib.import_module("mlc_llm.compiler_pass.low_batch_specialization")
        compile_for("off")
        assert command.compile is interface.compile
        assert passes.DispatchKVCacheCreation is dispatch.DispatchKVCacheCreation
        assert passes.LowBatchGemvSpecialize is low_batch.LowBatchGemvSpecialize


@pytest.mark.mlc
@pytest.mark.parametrize("source", ["", "/nowhere"])
def test_an_unknown_mlc_llm_is_one_message(source: str, mlc_llm: None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shadowattn_tvm.mlc", "compile", "model", "--shadow-attn", "off"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), SOURCE_VARIABLE: source},
    )
    assert done.returncode == 2
    assert "mlc_llm" in done.stderr
    assert "Traceback" not in done.stderr
