"""The process's pilot in a pipeline: what it is asked for, and that it changes no bit.

What can go wrong: heads of different buckets in one launch, a launch twice or never, keys unpacked
in the wrong order, padding that is read, a worker that waits for a pilot which has failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import tirx

from shadowattn_tvm.transform import PipelineHeads
from tests.tir_kernels.in_threads import sparse
from tests.transform.npu_in_process import KV_LENGTHS, Q_LENGTHS
from tir_kernels.build import build_kernels
from tir_kernels.constants import RATIO_ONE
from tir_kernels.features import AVX2, AVX512_VNNI, NEON_DOTPROD, CpuFeatures, cpu_features
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.spec import HeadParameters, PilotSpec, ShadowSpec, SpecError

ROOT = Path(__file__).parents[2]

Launches = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Case:
    """Two layers, of which the second runs, and how its units are launched.

    Attributes
    ----------
    other_scale : heads whose queries take another bucket than the rest.
    dense : heads that keep everything.
    sampled : heads of which every 2nd query votes.
    planned, expected : launches of the second layer's units.
    """

    pilot: PilotSpec
    other_scale: tuple[int, ...]
    dense: tuple[int, ...]
    planned: Launches
    expected: Launches
    centered: bool = False
    sampled: tuple[int, ...] = ()

    def spec(self) -> ShadowSpec:
        plain = sparse(self.pilot)
        gain = 8.0 if self.pilot.hadamard_rotation else 1.0
        gain *= 127 / self.pilot.quant_max
        base = replace(plain.heads[0][0], q_scale=0.03 * gain, k_scale=0.03 * gain)
        heads = tuple(self._head(base, head) for head in range(plain.attention.num_q_heads))
        means = None
        if self.centered:
            kv_heads, dims = plain.attention.num_kv_heads, plain.attention.head_dim
            ramp = [tuple(0.01 * d + 0.1 * h for d in range(dims)) for h in range(kv_heads)]
            means = (tuple(ramp),) * 2
        owners = tuple((owner,) for owner in range(plain.num_list_owners))
        return replace(plain, heads=(heads,) * 2, key_means=means, launches=(owners, self.planned))

    def stride(self, launched: list[list[int]]) -> int:
        """Of all units of a launch."""
        return 2 if launched[0][0] in self.sampled else 1

    def _head(self, base: HeadParameters, head: int) -> HeadParameters:
        return replace(
            base,
            q_scale=base.q_scale * (0.3 if head in self.other_scale else 1.0),
            query_stride=2 if head in self.sampled else 1,
            keep_ratio_q16=RATIO_ONE if head in self.dense else RATIO_ONE // (4 + head // 3),
        )


CASES = {
    "heads": Case(
        pilot=PilotSpec(score_bits=8, query_block=16),
        other_scale=(5, 6),
        dense=(3,),
        planned=((2, 0, 1), (8, 7, 6, 5), (3, 4)),
        expected=((2, 0, 1), (8, 7), (6, 5), (4,)),
    ),
    "groups, rotated": Case(
        pilot=PilotSpec(score_bits=9, share_group=True, query_block=32, hadamard_rotation=True),
        other_scale=(0,),  # of group 0, whose other heads take the usual bucket
        dense=(),
        planned=((2, 1, 0),),
        expected=((2, 1), (0,)),
        centered=True,
    ),
    "a sample votes": Case(
        pilot=PilotSpec(score_bits=9, query_block=16),
        other_scale=(),
        dense=(),
        planned=((0, 1, 2, 3), (4, 5, 6), (7, 8)),
        expected=((0, 1), (2, 3), (4, 5, 6), (7,), (8,)),
        sampled=(2, 3, 4, 5, 6, 8),
    ),
    "7 bits": Case(
        pilot=PilotSpec(bits=7, score_bits=8, query_block=8),
        other_scale=tuple(range(9)),
        dense=(),
        planned=((0, 1, 2), (3, 4, 5), (6, 7, 8)),
        expected=((0, 1, 2), (3, 4, 5), (6, 7, 8)),
    ),
}


def pipelined(spec: ShadowSpec, workers: int, features: CpuFeatures) -> tirx.PrimFunc:
    kernel = shadow_paged_prefill(spec, features, npu=True)
    module = tvm.IRModule({"kernel": kernel.with_attr("global_symbol", "kernel")})
    return PipelineHeads(workers, features)(module)["kernel"]


@pytest.mark.parametrize("features", [AVX512_VNNI, NEON_DOTPROD], ids=["x86", "arm"])
def test_well_formed(features: CpuFeatures) -> None:
    kernel = pipelined(CASES["heads"].spec(), 1, features)
    assert tirx.analysis.verify_well_formed(kernel)
    assert tirx.analysis.verify_ssa(kernel)
    assert "TVMFFIFunctionGetGlobal" in kernel.script()


def test_only_a_pipeline_asks_the_process() -> None:
    spec = CASES["heads"].spec()
    assert "TVMFFI" not in shadow_paged_prefill(spec, AVX2).script()


def test_launches_hold_everyone_once() -> None:
    spec = CASES["heads"].spec()
    for launches in (((0, 1), (1, 2)), ((0, 1, 2, 3), (4, 5, 6, 7, 8), ())):
        with pytest.raises(SpecError, match="launches: expected"):
            replace(spec, launches=(launches,) * 2)


def expected_calls(case: Case) -> list[tuple[int, int, list[list[int]]]]:
    """(queries, keys, query heads by unit) of every call, in order."""
    unit_heads = 3 if case.pilot.share_group else 1
    units = [
        [list(range(unit * unit_heads, (unit + 1) * unit_heads)) for unit in launch]
        for launch in case.expected
    ]
    return [
        (-(-queries // case.stride(heads)), keys, heads)
        for queries, keys in zip(Q_LENGTHS, KV_LENGTHS, strict=True)
        if queries > 0 and keys > 5  # k_min: shorter pasts run dense
        for heads in units
    ]


@pytest.mark.parametrize("name", CASES)
def test_the_process_gets_the_planned_launches_and_changes_no_bit(
    name: str, tmp_path: Path, host_target: tvm.target.Target
) -> None:
    case = CASES[name]
    features = cpu_features(host_target)
    if name == "7 bits" and features.isa == "avx512":
        features = AVX2  # another layout of keys: unsigned, less another offset
    spec = case.spec()
    library = tmp_path / "kernels.so"
    kernels = {
        "stand_in": shadow_paged_prefill(spec, features),
        "pipelined": pipelined(spec, 2, features),
    }
    build_kernels(kernels, host_target).export_library(str(library))
    for threads in sorted({1, min(2, os.cpu_count() or 1)}):
        results = tmp_path / f"{threads}.npz"
        subprocess.run(
            [sys.executable, "-m", "tests.transform.npu_in_process", library, results],
            cwd=ROOT,
            env={**os.environ, "TVM_NUM_THREADS": str(threads)},
            check=True,
            timeout=300,
        )
        arrays = dict(np.load(results))
        assert arrays.pop("threads") == threads
        for run in ("absent", "present", "absent again", "present again"):
            for part in ("output", "lse"):
                want, got = arrays[f"stand-in, {part}"], arrays[f"{run}, {part}"]
                assert np.isfinite(want).all()
                np.testing.assert_array_equal(got, want)
        report = json.loads(Path(f"{results}.json").read_text())
        assert report["errors"] == ["the DSP is away"] * 2
        check_calls(case, report["calls"])


def check_calls(case: Case, calls: list[dict[str, object]]) -> None:
    found = []
    for call in calls:
        heads = np.array(call["heads"])
        found.append((call["queries"], call["keys"], heads[..., 0].tolist()))
        pairs = {tuple(pair) for pair in heads[..., 1:3].reshape(-1, 2).tolist()}
        assert len(pairs) == 1 or len(heads) == 1, "launched together means one pair of buckets"
        block = case.pilot.query_block // case.stride(heads[..., 0].tolist())
        assert (call["layer"], call["query_block"]) == (1, block)
        assert call["score_max"] == case.pilot.score_max
    assert found == expected_calls(case)
