"""HVX kernels, executed: the same integers as the NumPy twins.

What can break them: head dims that are no power of two, lengths that are multiples of nothing,
padding that holds anything, saturated scores, rows alike, groups of 1, 2, 3, 7 heads, queries with
lists of their own, the largest products there are, vectors of which a part counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from shadowattn_tvm.device.hexagon import HexagonEmulator
from tests.hexagon import needs_hexagon, random_launch, twin_importance, twin_scores
from tir_kernels.constants import MASKED_SCORE
from tir_kernels.hexagon.build import HEXAGON_VERSIONS, build_object
from tir_kernels.hexagon.graph_spec import PilotGraphSpec
from tir_kernels.hexagon.inverse import row_inverse
from tir_kernels.hexagon.pack_keys import pack_keys
from tir_kernels.hexagon.pilot_scores import pilot_scores
from tir_kernels.hexagon.pooled_pilot import pooled_pilot
from tir_kernels.hexagon.static_scales import Scales, static_scales
from tir_kernels.pilot.pooling import INVERSE_BITS
from tir_kernels.spec import PilotSpec, SpecError

pytestmark = needs_hexagon

BLOCKS_OF_8 = PilotSpec(score_bits=9, query_block=8)
BLOCKS_OF_16 = PilotSpec(score_bits=9, query_block=16)
GROUP = PilotSpec(score_bits=8, share_group=True)
GROUP_BLOCKS_OF_16 = PilotSpec(score_bits=9, share_group=True, query_block=16)

POOLED = {
    "d64": PilotGraphSpec(1, 1, 16, 384, 64, BLOCKS_OF_8),
    "d80, two units of a group of 3": PilotGraphSpec(2, 3, 16, 256, 80, GROUP_BLOCKS_OF_16),
    "d128, a group of 7": PilotGraphSpec(1, 7, 16, 256, 128, GROUP_BLOCKS_OF_16),
    "d16, lists of single queries of a group of 2": PilotGraphSpec(2, 2, 8, 256, 16, GROUP),
    "d64, every 2nd query of a group of 2": PilotGraphSpec(
        1, 2, 16, 256, 64, GROUP_BLOCKS_OF_16, 2
    ),
    "d64, every 4th query": PilotGraphSpec(2, 1, 8, 256, 64, BLOCKS_OF_16, 4),
    "d256, three units": PilotGraphSpec(3, 1, 8, 128, 256, BLOCKS_OF_8),
}
SCORES = {
    "int32": PilotGraphSpec(2, 1, 8, 256, 64, PilotSpec()),
    "int8": PilotGraphSpec(1, 2, 8, 256, 80, PilotSpec(score_bits=8)),
    "int16": PilotGraphSpec(1, 1, 8, 256, 128, PilotSpec(score_bits=9)),
}


class Loaded:
    """The kernels of a spec on a DSP of their own."""

    def __init__(self, spec: PilotGraphSpec) -> None:
        self.spec = spec
        self.pooled = spec.pilot.pooled
        last = pooled_pilot(spec) if self.pooled else pilot_scores(spec)
        built = build_object({"pack": pack_keys(spec), "last": last}, "v66")
        self.emulator = HexagonEmulator([built.elf], ["pack", "last"])

    def run(
        self,
        queries: np.ndarray,
        keys: np.ndarray,
        scales: tuple[Scales, ...],
        num_rows: int,
        num_keys: int,
    ) -> np.ndarray:
        spec = self.spec
        lengths = np.array([num_rows, num_keys], np.int32)
        packed = np.empty(spec.packed_shape, np.int32)
        self.emulator.call("pack", [keys, lengths], [packed])
        inputs = [queries, packed, np.array(scales, np.int32), lengths]
        if self.pooled:
            result = np.empty((spec.units, spec.lists, spec.keys), np.int32)
            outputs = [result, *(np.empty(spec.scratch_shape, np.int32) for _ in range(2))]
        else:
            shape = (spec.units, spec.heads, spec.queries, spec.keys)
            result = np.empty(shape, spec.score_dtype)
            outputs = [result]
            inputs = inputs if spec.pilot.requantize else [queries, packed, lengths]
        self.emulator.call("last", inputs, outputs)
        return result


@pytest.fixture(scope="module")
def loaded() -> Iterator[object]:
    """`loaded(spec)`: built once."""
    made: list[Loaded] = []

    @cache
    def load(spec: PilotGraphSpec) -> Loaded:
        made.append(Loaded(spec))
        return made[-1]

    yield load
    for each in made:
        each.emulator.close()


def check(
    kernels: Loaded,
    queries: np.ndarray,
    keys: np.ndarray,
    scales: tuple[Scales, ...],
    num_rows: int,
    num_keys: int,
) -> np.ndarray:
    got = kernels.run(queries, keys, scales, num_rows, num_keys)
    q, k = queries[:, :, :num_rows], keys[:, :num_keys]
    if kernels.pooled:
        want = twin_importance(kernels.spec, q, k, scales)
        np.testing.assert_array_equal(got[:, : want.shape[1], :num_keys], want)
        assert not got[:, want.shape[1] :, :num_keys].any(), "lists without rows have no votes"
        assert (got[..., num_keys:] == MASKED_SCORE).all()
    else:
        want = twin_scores(kernels.spec, q, k, scales)
        np.testing.assert_array_equal(got[:, :, :num_rows, :num_keys], want)
        tiles = -(-num_keys // 128) * 128
        lowest = np.iinfo(got.dtype).min
        assert (got[:, :, :num_rows, num_keys:tiles] == lowest).all()
    return want


@pytest.mark.parametrize("spec", [*POOLED.values(), *SCORES.values()], ids=[*POOLED, *SCORES])
def test_every_length_equals_the_twin(spec: PilotGraphSpec, loaded) -> None:
    rng = np.random.default_rng(spec.head_dim)
    for num_rows, num_keys in [
        (spec.queries, spec.keys),
        (1, 1),
        (spec.queries - 1, spec.keys - 1),
        (3, 31),
        (5, 65),
        (spec.queries - 3, 128),
    ]:
        check(loaded(spec), *random_launch(spec, rng), num_rows, num_keys)


@pytest.mark.parametrize("spec", [*POOLED.values(), *SCORES.values()], ids=[*POOLED, *SCORES])
def test_extremes_equal_the_twin(spec: PilotGraphSpec, loaded) -> None:
    rng = np.random.default_rng(1)
    queries, keys, scales = random_launch(spec, rng)
    # every product as large as it gets, of either sign
    largest_q, largest_k = np.sign(queries) * np.int8(127), np.sign(keys) * np.int8(127)
    largest_q[:, :, 0], largest_k[:, 0], largest_k[:, 1] = 127, 127, -127
    want = check(loaded(spec), largest_q, largest_k, scales, spec.queries, spec.keys - 5)
    if spec.score_dtype == "int32" and not spec.pilot.pooled:
        assert want.max() == -want.min() == 127 * 127 * spec.head_dim
    # all keys alike, then all but one: every probability there can be
    keys[:] = keys[:, :1]
    check(loaded(spec), queries, keys, scales, spec.queries, spec.keys)
    keys[:, 7] = -keys[:, 7]
    steepest = tuple((32767, 0, 31 << 16) for _ in scales)
    flattest = tuple((1024, 30, 1) for _ in scales)
    for extreme in (steepest, flattest):
        check(loaded(spec), queries, keys, extreme, spec.queries, 200 % spec.keys + 1)


def test_padding_has_no_say_whatever_it_holds(loaded) -> None:
    spec = POOLED["d64"]
    queries, keys, scales = random_launch(spec, np.random.default_rng(2))
    rows, count = 11, 201
    want = check(loaded(spec), queries, keys, scales, rows, count)
    keys[:, count:] = np.sign(queries[0, 0, 0]) * 127  # would be the best of all
    queries[:, :, rows:] = -128
    again = loaded(spec).run(queries, keys, scales, rows, count)
    np.testing.assert_array_equal(again[:, : want.shape[1], :count], want)


def test_scales_are_found_by_head(loaded) -> None:
    rng = np.random.default_rng(3)
    table = tuple(tuple(map(int, rng.integers(1, 1 << 20, 3))) for _ in range(37))
    with HexagonEmulator([build_object({"s": static_scales(table, 5)}, "v66").elf], ["s"]) as dsp:
        for heads in ([0, 36, 17, 18, 5], [35, 1, 1, 36, 0], [-1, 37, 1 << 30, -(1 << 31), 3]):
            got = np.empty((5, 3), np.int32)
            dsp.call("s", [np.array(heads, np.int32)], [got])
            assert got.tolist() == [list(table[min(max(h, 0), 36)]) for h in heads]


def inverses(count: int) -> tirx.PrimFunc:
    @T.prim_func(s_tir=True)
    def kernel(var_sums: T.handle, var_inverses: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        sums = T.match_buffer(var_sums, (count,), "int32")
        results = T.match_buffer(var_inverses, (count,), "int32")
        for i in range(count):
            results[i] = row_inverse(sums[i])[0]

    return kernel


def test_inverses_are_exact() -> None:
    powers = 1 << np.arange(30)
    rng = np.random.default_rng(4)
    sums = np.concatenate(
        [powers, powers[1:] - 1, powers[1:] + 1, np.arange(1, 3000), rng.integers(1, 1 << 30, 9000)]
    ).astype(np.int32)
    got = np.empty_like(sums)
    with HexagonEmulator([build_object({"r": inverses(len(sums))}, "v66").elf], ["r"]) as dsp:
        dsp.call("r", [sums], [got])
    want = [((1 << (INVERSE_BITS + z.bit_length())) - 1) // z for z in sums.tolist()]
    assert got.tolist() == want


def test_code_is_what_it_should_be_on_every_version(loaded) -> None:
    spec = POOLED["d64"]
    for version in HEXAGON_VERSIONS:
        kernels = {"pack": pack_keys(spec), "pilot": pooled_pilot(spec)}
        assembly = build_object(kernels, version).assembly
        for instruction in ("vrmpy(", "vshuff(", "vlut16(", ":<<1:rnd:sat", "vror("):
            assert instruction in assembly, (version, instruction)
        assert "TVMBackend" not in assembly, "nothing is asked of a runtime"
        pilot = assembly[assembly.index("\npilot:") :]
        assert "call " not in pilot[: pilot.index(".Lfunc_end")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": 100}, "multiple of 128"),
        ({"keys": 1 << 16}, "up to 32768"),
        ({"queries": 12}, "multiple of 8"),
        ({"head_dim": 24}, "multiple of 16"),
        ({"units": 0}, "at least one unit"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, int], message: str) -> None:
    sizes = {"units": 1, "heads": 1, "queries": 8, "keys": 128, "head_dim": 64} | change
    with pytest.raises(SpecError, match=message):
        PilotGraphSpec(**sizes, pilot=BLOCKS_OF_8)
    with pytest.raises(SpecError, match="share lists"):
        pooled_pilot(SCORES["int32"])
