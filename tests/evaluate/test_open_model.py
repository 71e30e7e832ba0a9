"""The open model: the kernels of a plan, exchanged at run time, give the bits of its library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.compiler.kernel_parameters import attention_spec, shadow_spec
from shadowattn_tvm.config import configs_dir
from shadowattn_tvm.errors import LibraryError
from shadowattn_tvm.evaluate.attention import AttentionState, Floats
from shadowattn_tvm.evaluate.open_model import OpenModel, open_model
from shadowattn_tvm.plan import Plan, load_plan
from shadowattn_tvm.runtime.machine import load_weights
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory
from tests.plan.tiny_plan import make_plan
from tir_kernels.reference import attention as twin
from tir_kernels.spec import AttentionSpec

TOKENS = [int(t) for t in np.random.default_rng(11).integers(0, 256, 150)]


@pytest.fixture(scope="module")
def opened(tiny_directory: ModelDirectory) -> OpenModel:
    return open_model(tiny_directory, context_tokens=256, prefill_chunk_tokens=16)


def prefill(session: Session) -> np.ndarray:
    session.reset()
    return session.prefill(TOKENS)


class Twin:
    """The NumPy twins as an implementation; notes what it was called with."""

    def __init__(self, spec: AttentionSpec) -> None:
        self.spec = spec
        self.calls: list[tuple[str, int, int, int]] = []

    def paged(self, layer: int, q: Floats, k_past: Floats, v_past: Floats) -> AttentionState:
        self.calls.append(("paged", layer, len(q), len(k_past)))
        return self._attend(q, k_past, v_past, causal=False)

    def ragged(self, layer: int, q: Floats, k: Floats, v: Floats) -> AttentionState:
        self.calls.append(("ragged", layer, len(q), len(k)))
        return self._attend(q, k, v, causal=True)

    def _attend(self, q: Floats, k: Floats, v: Floats, causal: bool) -> AttentionState:
        output, lse = twin.ragged_prefill(
            self.spec, q, np.array([0, len(q)]), k, v, np.array([0, len(k)]), causal
        )
        return output.astype(np.float32), lse.astype(np.float32)


def test_open_and_dense_give_the_same_bits(
    opened: OpenModel, tiny_directory: ModelDirectory, tiny_library: Path
) -> None:
    opened.use_kernels()
    expected = Session(tiny_directory, tiny_library).prefill(TOKENS)
    np.testing.assert_array_equal(prefill(opened.session), expected)


def test_open_with_a_plans_kernel_and_the_plans_library_give_the_same_bits(
    opened: OpenModel,
    tiny_directory: ModelDirectory,
    tiny_plan: Plan,
    tiny_library: Path,
    tiny_shadow_library: Path,
) -> None:
    opened.use_plan(shadow_spec(tiny_plan, tiny_directory.architecture))
    got = prefill(opened.session)
    np.testing.assert_array_equal(got, Session(tiny_directory, tiny_shadow_library).prefill(TOKENS))
    assert (got != Session(tiny_directory, tiny_library).prefill(TOKENS)).any()


def test_an_implementation_in_python_attends_like_the_kernels(
    opened: OpenModel, tiny_directory: ModelDirectory
) -> None:
    opened.use_kernels()
    expected = prefill(opened.session)
    implementation = Twin(attention_spec(tiny_directory.architecture))
    opened.use(implementation)
    np.testing.assert_allclose(prefill(opened.session), expected, rtol=1e-3, atol=1e-3)
    chunks = [16] * 9 + [6]
    wanted = {("ragged", layer, m, m) for layer in range(3) for m in chunks}
    wanted |= {
        ("paged", layer, m, sum(chunks[:i]))
        for layer in range(3)
        for i, m in enumerate(chunks)
        if i
    }
    assert set(implementation.calls) == wanted
    assert len(implementation.calls) == 3 * (10 + 9)


def test_models_live_side_by_side(opened: OpenModel, tiny_directory: ModelDirectory) -> None:
    other = open_model(
        tiny_directory,
        context_tokens=256,
        prefill_chunk_tokens=16,
        weights=load_weights(tiny_directory),
    )
    sparse = make_plan(tiny_directory, keep_ratio=0.0)
    opened.use_kernels()
    before = prefill(opened.session)
    other.use_plan(shadow_spec(sparse, tiny_directory.architecture))
    assert (prefill(other.session) != before).any()
    np.testing.assert_array_equal(prefill(opened.session), before)


def test_what_an_implementation_raises_arrives(opened: OpenModel) -> None:
    class Broken(Twin):
        def paged(self, layer: int, q: Floats, k_past: Floats, v_past: Floats) -> AttentionState:
            raise ValueError("no such thing")

    opened.use(Broken(AttentionSpec(6, 2, 16, 0.25)))
    with pytest.raises(ValueError, match="no such thing"):
        prefill(opened.session)
    opened.use_kernels()
    assert np.isfinite(prefill(opened.session)).all()


def test_a_session_of_its_own_refuses_an_open_library(
    opened: OpenModel, tiny_directory: ModelDirectory
) -> None:
    with pytest.raises(LibraryError, match=r"shadowattn\.open"):
        Session(tiny_directory, opened.session.library_path)


@pytest.mark.model
@pytest.mark.slow
def test_on_smollm2(
    smollm2_dir: Callable[[str], ModelDirectory],
    smollm2_library: Callable[[str, Plan | None], Path],
) -> None:
    directory = smollm2_dir("q0f32")
    plan = load_plan(configs_dir() / "plans" / "smollm2-135m-r20.json")
    model = open_model(directory, context_tokens=2048, prefill_chunk_tokens=128)
    model.use_plan(shadow_spec(plan, directory.architecture))
    library = Session(directory, smollm2_library("q0f32", plan), prefill_chunk_size=128)
    tokens = [int(t) for t in np.random.default_rng(1).integers(0, 49152, 700)]
    np.testing.assert_array_equal(model.session.prefill(tokens), library.prefill(tokens))
