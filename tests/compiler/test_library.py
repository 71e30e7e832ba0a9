"""Compiling a tiny model: what comes out, what is refused, what the cache knows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.compiler.cache import library_key
from shadowattn_tvm.compiler.targets import Device, resolve_device
from shadowattn_tvm.errors import ConfigError, LibraryError, OutputError, PlanError
from shadowattn_tvm.plan import Plan, plan_hash
from shadowattn_tvm.runtime.library import ModelLibrary
from shadowattn_tvm.runtime.machine import ThisMachine
from shadowattn_tvm.runtime.plan_check import require_plan
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory
from tests.plan.tiny_plan import make_plan

ENGINE_FUNCTIONS = (
    "embed",
    "get_logits",
    "prefill",
    "decode",
    "prefill_to_last_hidden_states",
    "decode_to_last_hidden_states",
    "batch_prefill",
    "batch_decode",
    "batch_verify",
    "batch_select_last_hidden_states",
    "create_tir_paged_kv_cache",
    "alloc_embedding_tensor",
    "softmax_with_temperature",
    "apply_logit_bias_inplace",
    "apply_penalty_inplace",
    "apply_bitmask_inplace",
    "_metadata",
)
"""What MLC's engine looks up in a library for a CPU."""

TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 150))


def load(path: Path) -> tvm.runtime.Module:
    return relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu()).module


def test_every_function_of_the_engine_is_there(tiny_shadow_library: Path) -> None:
    module = load(tiny_shadow_library)
    missing = [name for name in ENGINE_FUNCTIONS if not module.implements_function(name, True)]
    assert missing == []


def test_metadata_is_mlcs_and_ours(
    tiny_shadow_library: Path, tiny_directory: ModelDirectory, tiny_plan: Plan
) -> None:
    metadata = json.loads(load(tiny_shadow_library)["_metadata"]())
    assert metadata["model_type"] == "llama"
    assert metadata["quantization"] == "q0f32"
    assert metadata["context_window_size"] == 256
    assert metadata["prefill_chunk_size"] == 16
    assert metadata["kv_state_kind"] == "kv_cache"
    assert metadata["tensor_parallel_shards"] == 1
    names = {parameter["name"] for parameter in metadata["params"]}
    assert names == set(tiny_directory.tensor_cache.tensors())
    assert all(p["preprocs"] == [] and p["pipeline_stages"] == [0] for p in metadata["params"])
    assert metadata["memory_usage"]["prefill"] > 0
    assert metadata["weight_hash"] == tiny_directory.weight_hash
    shadow = metadata["shadow_attn"]
    assert shadow["plan_hash"] == plan_hash(tiny_plan)
    assert shadow["keep_ratio_q16"][0] == [65536] * 6  # the dense layer
    assert shadow["keep_ratio_q16"][1] == [16384] * 6


def test_the_object_code_holds_our_kernels(tiny_shadow_library: Path, tiny_library: Path) -> None:
    shadow, dense = tiny_shadow_library.read_bytes(), tiny_library.read_bytes()
    for symbol in (b"shadowattn_dense_ragged_prefill", b"shadowattn_dense_paged_decode"):
        assert symbol in shadow
        assert symbol in dense
    assert b"shadowattn_paged_prefill" in shadow
    assert b"shadowattn_paged_prefill" not in dense
    assert b"shadowattn_dense_paged_prefill" in dense
    assert b"batch_prefill_paged_kv_cpu\0" not in dense  # TVM's own is gone


def test_keeping_everything_gives_the_dense_logits(
    tiny_directory: ModelDirectory, tiny_library: Path, tmp_path: Path
) -> None:
    everything = make_plan(tiny_directory, keep_ratio=1.0)
    library = compile_library(tiny_directory, everything, output=tmp_path / "all.so").path
    dense = Session(tiny_directory, tiny_library).prefill(TOKENS)
    shadow = Session(tiny_directory, library).prefill(TOKENS)
    np.testing.assert_array_equal(shadow, dense)


def test_a_sparse_plan_changes_the_logits_only_once_there_is_a_past_to_thin_out(
    tiny_directory: ModelDirectory, tiny_library: Path, tiny_shadow_library: Path
) -> None:
    dense = Session(tiny_directory, tiny_library)
    shadow = Session(tiny_directory, tiny_shadow_library)
    np.testing.assert_array_equal(shadow.prefill(TOKENS[:16]), dense.prefill(TOKENS[:16]))
    later = shadow.prefill(TOKENS[16:]), dense.prefill(TOKENS[16:])
    assert np.isfinite(later[0]).all()
    assert np.abs(later[0] - later[1]).max() > 1e-4
    assert 0.25 < shadow.prefill_pairs.past_fraction < 0.75


def test_the_library_runs_where_only_tvm_is_imported(
    tiny_shadow_library: Path, tiny_directory: ModelDirectory
) -> None:
    """No Python function of ours is called at run time: a process that can't import us runs it."""
    script = f"""
import json, sys
sys.modules["shadowattn_tvm"] = sys.modules["tir_kernels"] = None
import numpy as np, tvm
from tvm import relax
from tvm.contrib import tvmjs
from tvm_ffi import Shape
cpu = tvm.cpu()
library = tvm.runtime.load_module({str(tiny_shadow_library)!r})
module = relax.VirtualMachine(library, cpu).module
stored, _ = tvmjs.load_tensor_cache({str(tiny_directory.path)!r}, cpu)
params = [stored[p["name"]] for p in json.loads(module["_metadata"]())["params"]]
sizes = [Shape([n]) for n in (1, 256, 16, 16, 0)]
cache = module["create_tir_paged_kv_cache"](*sizes)
get = tvm.get_global_func
get("vm.builtin.kv_state_add_sequence")(cache, 0)
tokens = {list(TOKENS[:64])!r}
for begin in range(0, 64, 16):
    ids = np.array(tokens[begin : begin + 16], "int32")
    get("vm.builtin.kv_state_begin_forward")(cache, Shape([0]), Shape([16]))
    embedded = module["embed"](tvm.runtime.tensor(ids, cpu), params)
    embedded = get("vm.builtin.reshape")(embedded, Shape([1, 16, 96]))
    logits, _ = module["prefill"](embedded, cache, params)
    get("vm.builtin.kv_state_end_forward")(cache)
print(json.dumps(logits.numpy().reshape(-1).tolist()))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    ours = Session(tiny_directory, tiny_shadow_library).prefill(TOKENS[:64])
    np.testing.assert_array_equal(np.array(json.loads(result.stdout), np.float32), ours)


def test_the_second_time_comes_from_the_cache(
    tiny_directory: ModelDirectory, tiny_library: Path, tmp_path: Path
) -> None:
    again = compile_library(tiny_directory, None, output=tmp_path / "again.so")
    assert again.from_cache
    assert again.path.read_bytes() == tiny_library.read_bytes()


def test_the_key_follows_plan_and_limits(tiny_directory: ModelDirectory, tiny_plan: Plan) -> None:
    device = resolve_device("host")
    architecture = tiny_directory.architecture
    shorter = architecture.with_limits(context_window_size=128)
    keys = {
        library_key(tiny_directory, architecture, None, device),
        library_key(tiny_directory, architecture, tiny_plan, device),
        library_key(tiny_directory, shorter, None, device),
        library_key(tiny_directory, architecture, None, Device(tvm.target.Target("llvm"), 0)),
        library_key(tiny_directory, architecture, None, Device(device.target, 1)),
    }
    assert len(keys) == 5


def test_a_debug_dump_has_a_file_a_phase(
    tiny_directory: ModelDirectory, tiny_plan: Plan, tmp_path: Path
) -> None:
    library = compile_library(
        tiny_directory,
        tiny_plan,
        output=tmp_path / "lib.so",
        debug_dump=tmp_path / "dump",
    )
    assert {phase.name for phase in library.phases} >= {"attach attention", "generate code"}
    names = sorted(path.name for path in (tmp_path / "dump").iterdir())
    assert names[0] == "0-attach-attention.py"
    assert "shadowattn_paged_prefill" in (tmp_path / "dump" / names[0]).read_text()


def test_a_plan_of_another_model_is_refused(
    tiny_directory: ModelDirectory, tiny_plan: Plan
) -> None:
    other = tiny_plan.model_copy(
        update={"model": tiny_plan.model.model_copy(update={"fingerprint": "0" * 64})}
    )
    with pytest.raises(PlanError, match="holds another model"):
        compile_library(tiny_directory, other)


def test_a_library_with_another_plan_is_refused(
    tiny_library: Path, tiny_shadow_library: Path, tiny_plan: Plan
) -> None:
    dense = ModelLibrary(tiny_library, ThisMachine()).metadata
    shadow = ModelLibrary(tiny_shadow_library, ThisMachine()).metadata
    require_plan(dense, None, tiny_library)
    require_plan(shadow, tiny_plan, tiny_shadow_library)
    with pytest.raises(LibraryError, match="compiled without shadowAttn"):
        require_plan(dense, tiny_plan, tiny_library)
    with pytest.raises(LibraryError, match="with the plan"):
        require_plan(shadow, None, tiny_shadow_library)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("context_window_size=0", "positive integer"),
        ("context_window_size=many", "positive integer"),
        ("sliding_window_size=5", "KEY=VALUE"),
        ("context_window_size", "KEY=VALUE"),
        ("context_window_size=100000", "at most"),
        ("prefill_chunk_size=257", "prefill_chunk_size"),
    ],
)
def test_bad_overrides_are_named(
    overrides: str, message: str, tiny_directory: ModelDirectory
) -> None:
    with pytest.raises(ConfigError, match=message):
        compile_library(tiny_directory, None, overrides=overrides)


def test_an_unknown_device_lists_the_known(tiny_directory: ModelDirectory) -> None:
    with pytest.raises(ConfigError, match=r"'toaster'.*host"):
        compile_library(tiny_directory, None, device="toaster")


def test_an_output_that_can_not_be_written_leaves_nothing(
    tiny_directory: ModelDirectory, tiny_library: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't write"):
        compile_library(tiny_directory, None, output=tmp_path / "file" / "lib.so")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
