"""Sparse decode in the runtime's own KV cache: the shadow follows its tokens wherever they go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm_ffi import Shape

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.compiler.kernel_parameters import library_spec
from shadowattn_tvm.plan import Plan
from shadowattn_tvm.runtime.library import ModelLibrary
from shadowattn_tvm.runtime.machine import ThisMachine, load_weights
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory
from tests.plan.tiny_plan import make_plan, shared_lists
from tir_kernels.constants import PAGE_SIZE_TOKENS
from tir_kernels.reference.pilot import choose_bucket
from tir_kernels.reference.sparse_decode import key_shadow, pilot_keys
from tir_kernels.spec import ShadowSpec

TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 150))
CHUNK = 16


def sparse_decode(plan: Plan) -> Plan:
    return plan.model_copy(update={"decode": "sparse"})


def seen_by_the_pilot(plan: Plan) -> Plan:
    """Centred keys and a rotation as well: the shadow is of what the pilot sees. Here, keys of KV
    head 0 measure the middle one of its scales, those of KV head 1 the smallest."""
    model = plan.model
    means = np.random.default_rng(8).standard_normal((model.num_kv_heads, model.head_dim))
    k_scales = np.repeat([0.24, 0.8], model.num_q_heads // model.num_kv_heads)
    layers = []
    for layer in plan.layers:
        heads = tuple(
            head.model_copy(
                update={
                    "q_scale": 0.2,
                    "k_scale": float(k_scale),
                    "requant": head.requant and ((1e-3,) * 3,) * 3,
                }
            )
            for head, k_scale in zip(layer.heads, k_scales, strict=True)
        )
        changed = {"heads": heads, "key_means": tuple(map(tuple, means.tolist()))}
        layers.append(layer.model_copy(update=changed))
    pilot = plan.pilot.model_copy(update={"center_keys": True, "hadamard_rotation": True})
    changed = plan.model_copy(update={"layers": tuple(layers), "pilot": pilot})
    return Plan.model_validate_json(changed.model_dump_json())


@pytest.fixture(scope="module")
def plan(tiny_plan: Plan) -> Plan:
    return sparse_decode(seen_by_the_pilot(tiny_plan))


@pytest.fixture(scope="module")
def library(
    plan: Plan, tiny_directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("sparse-decode")
    return compile_library(tiny_directory, plan, output=folder / "lib.so").path


@pytest.fixture(scope="module")
def dense_decode_library(
    plan: Plan, tiny_directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Its pages have no shadow."""
    folder = tmp_path_factory.mktemp("dense-decode")
    dense = plan.model_copy(update={"decode": "dense"})
    return compile_library(tiny_directory, dense, output=folder / "lib.so").path


class Cache:
    """A KV cache of several sequences, and the model that fills it."""

    def __init__(self, directory: ModelDirectory, library: Path, spec: ShadowSpec) -> None:
        self.spec = spec
        loaded = ModelLibrary(library, ThisMachine())
        weights = load_weights(directory)
        self.parameters = [weights[parameter.name] for parameter in loaded.metadata.params]
        self.function = loaded.function
        sizes = (4, 256, CHUNK, PAGE_SIZE_TOKENS, 0)
        self.cache = self.function("create_tir_paged_kv_cache")(*(Shape([n]) for n in sizes))

    def state(self, name: str, *arguments: Any) -> Any:
        return tvm.get_global_func(f"vm.builtin.{name}")(self.cache, *arguments)

    def feed(self, function: str, sequences: Sequence[int], ids: Sequence[int]) -> NDArray[Any]:
        """Logits (sequences, vocab) after the tokens, as many for each sequence."""
        each = len(ids) // len(sequences)
        self.state("kv_state_begin_forward", Shape(sequences), Shape([each] * len(sequences)))
        embedded = self.function("embed")(
            tvm.runtime.tensor(np.array(ids, np.int32)), self.parameters
        )
        shape = [1, each] if len(sequences) == 1 else [len(sequences), 1]
        embedded = tvm.get_global_func("vm.builtin.reshape")(
            embedded, Shape([*shape, embedded.shape[1]])
        )
        logits, _ = self.function(function)(embedded, self.cache, self.parameters)
        self.state("kv_state_end_forward")
        return logits.numpy().reshape(len(sequences), -1)

    def prefill(self, sequence: int, ids: Sequence[int]) -> NDArray[Any]:
        for first in range(0, len(ids), CHUNK):
            logits = self.feed("prefill", [sequence], ids[first : first + CHUNK])
        return logits[0]

    def decode(self, sequence: int, token: int) -> NDArray[Any]:
        return self.feed("decode", [sequence], [token])[0]

    def rows(self, sequence: int, length: int) -> tuple[NDArray[np.float32], ...]:
        """K and V plane, each (layers, length, stored heads, D), of a sequence's tokens."""
        geometry = self.spec.attention
        shape = (self.spec.num_layers, length, geometry.stored_heads, geometry.head_dim)
        planes = [tvm.runtime.tensor(np.full(shape, np.nan, np.float32)) for _ in range(2)]
        self.state("attention_kv_cache_debug_get_kv", sequence, 0, length, *planes)
        return tuple(plane.numpy() for plane in planes)

    def require_shadow(self, sequence: int, length: int) -> None:
        """The bytes beside a sequence's keys are those keys' shadow, and their maxima."""
        hkv, dim = self.spec.attention.num_kv_heads, self.spec.attention.head_dim
        k, _ = self.rows(sequence, length)
        for layer in range(self.spec.num_layers):
            stored = k[layer, :, hkv].copy().view(np.int8)  # both KV heads fit the K plane's row
            want = key_shadow(self.spec, layer, k[layer, :, :hkv])
            np.testing.assert_array_equal(stored[:, : hkv * dim].reshape(want.shape), want)
            maxima = stored[:, hkv * dim : (hkv + 1) * dim].copy().view(np.float32)[:, :hkv]
            seen = pilot_keys(self.spec, layer, k[layer, :, :hkv])
            np.testing.assert_array_equal(maxima, np.abs(seen).max(-1))


@pytest.fixture
def cache(tiny_directory: ModelDirectory, library: Path, plan: Plan) -> Cache:
    return Cache(tiny_directory, library, library_spec(plan, tiny_directory.architecture))


def test_prefill_and_decode_write_the_shadow(cache: Cache) -> None:
    cache.state("kv_state_add_sequence", 0)
    cache.prefill(0, TOKENS[:70])
    for token in TOKENS[70:75]:
        cache.decode(0, token)
    cache.require_shadow(0, 75)


@pytest.mark.parametrize("position", [0, 5, 16, 37, 70])
def test_a_fork_has_the_shadow_of_its_prefix(cache: Cache, position: int) -> None:
    cache.state("kv_state_add_sequence", 0)
    cache.prefill(0, TOKENS[:70])
    cache.state("kv_state_fork_sequence", 0, 1, position)
    for token in TOKENS[100:120]:
        cache.decode(1, token)
    cache.decode(0, TOKENS[70])
    cache.require_shadow(1, position + 20)
    cache.require_shadow(0, 71)
    if position > 0:
        parent, child = cache.rows(0, position), cache.rows(1, position)
        for mine, theirs in zip(parent, child, strict=True):
            hkv = cache.spec.attention.num_kv_heads
            np.testing.assert_array_equal(mine[:, :, :hkv], theirs[:, :, :hkv])


@pytest.mark.parametrize("position", [5, 15])
def test_a_fork_within_the_first_page_decodes_like_a_fresh_sequence(
    cache: Cache, position: int
) -> None:
    cache.state("kv_state_add_sequence", 0)
    cache.prefill(0, TOKENS[:70])
    cache.state("kv_state_fork_sequence", 0, 1, position)
    cache.state("kv_state_add_sequence", 2)
    cache.prefill(2, TOKENS[:position])
    for token in TOKENS[100:140]:
        np.testing.assert_array_equal(cache.decode(1, token), cache.decode(2, token))


def test_a_fork_decodes_like_its_parent(cache: Cache) -> None:
    # Both now have the same two parts, a shared and an own one, each with lists of its own.
    cache.state("kv_state_add_sequence", 0)
    cache.prefill(0, TOKENS[:70])
    cache.state("kv_state_fork_sequence", 0, 1, 70)
    for token in TOKENS[100:110]:
        np.testing.assert_array_equal(cache.decode(0, token), cache.decode(1, token))


def test_two_sequences_decode_as_each_alone(cache: Cache) -> None:
    for sequence, length in enumerate((70, 33)):
        cache.state("kv_state_add_sequence", sequence)
        cache.prefill(sequence, TOKENS[:length])
        cache.state("kv_state_add_sequence", sequence + 2)
        cache.prefill(sequence + 2, TOKENS[:length])
    together = cache.feed("batch_decode", [0, 1], TOKENS[100:102])
    for sequence in (0, 1):
        alone = cache.decode(sequence + 2, TOKENS[100 + sequence])
        np.testing.assert_allclose(together[sequence], alone, rtol=1e-4, atol=1e-4)


def test_what_was_taken_back_leaves_no_trace(
    cache: Cache, tiny_directory: ModelDirectory, library: Path
) -> None:
    session, fresh = (Session(tiny_directory, library) for _ in range(2))
    session.prefill(TOKENS[:70])
    for token in TOKENS[100:120]:
        session.decode(token)
    session.rollback(20 + 12)
    fresh.prefill(TOKENS[:58])
    for token in TOKENS[60:80]:
        np.testing.assert_array_equal(session.decode(token), fresh.decode(token))
    cache.state("kv_state_add_sequence", 0)
    cache.prefill(0, TOKENS[:70])
    cache.state("kv_state_popn", 0, 12)
    for token in TOKENS[60:80]:
        cache.decode(0, token)
    cache.require_shadow(0, 78)


def test_keeping_everything_gives_the_dense_logits(
    tiny_directory: ModelDirectory, tiny_library: Path, tmp_path: Path
) -> None:
    everything = sparse_decode(make_plan(tiny_directory, keep_ratio=1.0))
    library = compile_library(tiny_directory, everything, output=tmp_path / "all.so").path
    dense, sparse = Session(tiny_directory, tiny_library), Session(tiny_directory, library)
    np.testing.assert_array_equal(sparse.prefill(TOKENS[:70]), dense.prefill(TOKENS[:70]))
    for token in TOKENS[70:80]:
        np.testing.assert_array_equal(sparse.decode(token), dense.decode(token))


def require_equal_prefill(first: Cache, second: Cache) -> None:
    """The same logits to the bit, after whatever a cache goes through. (No chunk is of one token:
    that would be decode.)"""

    def prefill(sequence: int, ids: Sequence[int]) -> None:
        logits = (cache.prefill(sequence, ids) for cache in (first, second))
        np.testing.assert_array_equal(*logits)

    def state(name: str, *arguments: Any) -> None:
        for cache in (first, second):
            cache.state(f"kv_state_{name}", *arguments)

    state("add_sequence", 0)
    prefill(0, TOKENS[:70])
    state("popn", 0, 12)
    prefill(0, TOKENS[80:110])
    for child, position in ((1, 37), (2, 5)):
        state("fork_sequence", 0, child, position)
        prefill(child, TOKENS[110:150])
    state("remove_sequence", 1)
    state("add_sequence", 3)  # in pages that held something else
    prefill(3, TOKENS[20:90])
    prefill(0, TOKENS[:20])


def require_both_kinds_of_scale(cache: Cache, length: int) -> None:
    """Prefill takes KV head 0 from the pages, and quantizes KV head 1 anew."""
    spec = cache.spec
    group = spec.attention.group_size
    k, _ = cache.rows(0, length)
    for layer in range(spec.num_layers):
        seen = pilot_keys(spec, layer, k[layer, :, : spec.attention.num_kv_heads])
        scales = [head.k_scale for head in spec.heads[layer][::group]]
        chosen = [choose_bucket(seen[:, h], scale, 0.5) for h, scale in enumerate(scales)]
        assert chosen == [1, 0]


def test_prefill_is_what_it_is_without_a_shadow(
    cache: Cache, tiny_directory: ModelDirectory, dense_decode_library: Path
) -> None:
    require_equal_prefill(cache, Cache(tiny_directory, dense_decode_library, cache.spec))
    require_both_kinds_of_scale(cache, 108)


def test_so_it_is_with_shared_lists_in_a_pipeline(
    tiny_directory: ModelDirectory, tiny_plan: Plan, tmp_path: Path
) -> None:
    plan = seen_by_the_pilot(shared_lists(tiny_plan))
    caches = [
        Cache(
            tiny_directory,
            compile_library(
                tiny_directory, each, device=device, output=tmp_path / f"{device}.so"
            ).path,
            library_spec(each, tiny_directory.architecture),
        )
        for each, device in ((sparse_decode(plan), "host-npu"), (plan, "host"))
    ]
    require_equal_prefill(caches[0], caches[1])
    require_both_kinds_of_scale(caches[0], 108)


def test_decode_is_sparse_only_if_the_plan_says_so(
    tiny_directory: ModelDirectory, library: Path, dense_decode_library: Path
) -> None:
    other = dense_decode_library
    sparse, dense = Session(tiny_directory, library), Session(tiny_directory, other)
    np.testing.assert_array_equal(sparse.prefill(TOKENS[:100]), dense.prefill(TOKENS[:100]))
    after = sparse.decode(TOKENS[100]), dense.decode(TOKENS[100])
    assert np.isfinite(after[0]).all()
    assert np.abs(after[0] - after[1]).max() > 1e-4
    for symbol in (b"shadowattn_shadow_append", b"shadowattn_sparse_paged_decode"):
        assert symbol in library.read_bytes()
        assert symbol not in other.read_bytes()
    assert b"shadowattn_dense_paged_decode" in other.read_bytes()
