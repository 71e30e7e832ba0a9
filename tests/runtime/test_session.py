"""The session over a real library of a tiny model.

What can break it: chunk borders, forward passes torn at every point, taking back across pages
(16 tokens each), the end of the context window, and libraries or weights that don't fit.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import te

from shadowattn_tvm.errors import ConfigError, ContextOverflowError, LibraryError
from shadowattn_tvm.runtime.session import Session
from tests.calibrate.tiny_model import tiny_config, write_tiny_model

CONTEXT = 256
PROMPT = [int(i) for i in np.random.default_rng(1).integers(0, 256, 100)]
TOLERANCE = {"rtol": 0, "atol": 2e-5}
"""Logits are below 10 in size; only the order of float32 additions differs between chunkings."""


@pytest.fixture(scope="module")
def shared(tiny_directory, tiny_library) -> Session:
    return Session(tiny_directory, tiny_library)


@pytest.fixture
def session(shared) -> Session:
    """An empty session. All tests share one, which is itself a test of resetting."""
    shared.reset()
    return shared


@pytest.fixture(scope="module")
def expected(tiny_directory, tiny_library) -> np.ndarray:
    """Logits after the whole prompt, by a session of its own."""
    return Session(tiny_directory, tiny_library).prefill(PROMPT)


def test_logits_have_one_value_per_token_of_the_vocabulary(session):
    logits = session.prefill(PROMPT[:5])
    assert (logits.shape, logits.dtype) == ((256,), np.float32)
    assert logits.std() > 0.1


def test_logits_are_not_overwritten_by_the_next_call(session):
    first = session.prefill(PROMPT[:5])
    kept = first.copy()
    session.decode(7)
    assert (first == kept).all()


@pytest.mark.parametrize("chunk", [1, 7, 15])
def test_any_chunk_size_gives_the_same(tiny_directory, tiny_library, expected, chunk):
    other = Session(tiny_directory, tiny_library, prefill_chunk_size=chunk)
    np.testing.assert_allclose(other.prefill(PROMPT), expected, **TOLERANCE)


@pytest.mark.parametrize("cut", [1, 16, 17, 99])
def test_two_prefills_equal_one(session, expected, cut):
    session.prefill(PROMPT[:cut])
    np.testing.assert_allclose(session.prefill(PROMPT[cut:]), expected, **TOLERANCE)


def test_decoding_token_by_token_equals_prefilling(session, expected):
    for token in PROMPT:
        logits = session.decode(token)
    np.testing.assert_allclose(logits, expected, **TOLERANCE)


@pytest.mark.parametrize("taken_back", [1, 15, 16, 17, 40, 99])
def test_what_is_taken_back_leaves_no_trace(session, expected, taken_back):
    session.prefill(PROMPT[: 100 - taken_back])
    session.prefill([3] * taken_back)
    session.decode(5)
    session.rollback(taken_back + 1)
    assert session.tokens == tuple(PROMPT[: 100 - taken_back])
    np.testing.assert_allclose(session.prefill(PROMPT[100 - taken_back :]), expected, **TOLERANCE)


@pytest.mark.parametrize("step", ["_begin", "_embed", "_prefill", "_end"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_torn_prefill_leaves_the_session_as_it_was(
    session, expected, monkeypatch, step, after, error
):
    session.prefill(PROMPT[:30])
    before = session.tokens, session.prefill_pairs
    whole = getattr(session, step)
    calls = iter(range(10))

    def torn(*arguments):
        if next(calls) == 1:  # in the second chunk
            if after:
                whole(*arguments)
            raise error
        return whole(*arguments)

    monkeypatch.setattr(session, step, torn)
    with pytest.raises(error):
        session.prefill([9] * 40)
    monkeypatch.undo()
    assert (session.tokens, session.prefill_pairs) == before
    np.testing.assert_allclose(session.prefill(PROMPT[30:]), expected, **TOLERANCE)


@pytest.mark.parametrize("step", ["_begin", "_embed", "_decode", "_end"])
def test_a_torn_decode_leaves_the_session_as_it_was(session, expected, monkeypatch, step):
    session.prefill(PROMPT[:99])
    whole = getattr(session, step)

    def torn(*arguments):
        whole(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(session, step, torn)
    with pytest.raises(KeyboardInterrupt):
        session.decode(9)
    monkeypatch.undo()
    assert session.position == 99
    np.testing.assert_allclose(session.decode(PROMPT[99]), expected, **TOLERANCE)


def test_the_window_can_be_filled_to_the_last_token_and_not_beyond(session):
    session.prefill(PROMPT[:50] * 5)
    for token in PROMPT[: CONTEXT - 250]:
        session.decode(token)
    assert session.position == CONTEXT
    for extend in (lambda: session.decode(1), lambda: session.prefill([1, 2])):
        with pytest.raises(ContextOverflowError, match=r"256 tokens .* 256 and [12] more"):
            extend()
    session.rollback(1)
    session.decode(1)
    assert session.position == CONTEXT


@pytest.mark.parametrize("tokens", [[], [256], [-1], [3, 1000, 4]])
def test_tokens_that_cannot_be_are_refused(session, tokens):
    session.prefill(PROMPT[:3])
    with pytest.raises(ConfigError, match="expected"):
        session.prefill(tokens)
    assert session.position == 3


@pytest.mark.parametrize("count", [-1, 4])
def test_more_than_there_is_cannot_be_taken_back(session, count):
    session.prefill(PROMPT[:3])
    with pytest.raises(ConfigError, match="0 to 3"):
        session.rollback(count)


def test_a_dense_library_keeps_every_pair(session):
    before = session.prefill_pairs
    session.prefill(PROMPT)
    pairs = session.prefill_pairs - before
    assert pairs.past_fraction == pairs.total_fraction == 1.0
    assert pairs.past_total + pairs.chunk_total == 100 * 101 // 2


def test_limits_may_be_lowered_but_not_raised(tiny_directory, tiny_library):
    small = Session(tiny_directory, tiny_library, context_window_size=20)
    with pytest.raises(ContextOverflowError, match="20"):
        small.prefill(PROMPT[:21])
    small.prefill(PROMPT[:20])
    for limits in (
        {"context_window_size": 257},
        {"context_window_size": 0},
        {"prefill_chunk_size": 17},
    ):
        with pytest.raises(ConfigError, match="must be compiled"):
            Session(tiny_directory, tiny_library, **limits)


def test_weights_of_another_shape_are_refused_naming_both(tiny_library, tmp_path):
    wider = write_tiny_model(tmp_path, tiny_config(intermediate_size=128))
    with pytest.raises(LibraryError, match=r"tiny\.so.*was not compiled for") as refusal:
        Session(wider, tiny_library)
    assert str(tmp_path) in str(refusal.value)
    assert "[128, 96]" in str(refusal.value)
    assert "[256, 96]" in str(refusal.value)


def test_other_weights_of_the_same_shape_are_refused(tiny_directory, tiny_library):
    other = replace(
        tiny_directory, tensor_cache=replace(tiny_directory.tensor_cache, content_hash="0" * 64)
    )
    with pytest.raises(LibraryError, match="weight hash"):
        Session(other, tiny_library)


def test_what_is_not_a_model_library_is_refused(tiny_directory, tmp_path):
    with pytest.raises(LibraryError, match="shadowattn compile"):
        Session(tiny_directory, tmp_path / "missing.so")
    (tmp_path / "text.so").write_text("not a library")
    with pytest.raises(LibraryError, match=r"text\.so"):
        Session(tiny_directory, tmp_path / "text.so")
    with pytest.raises(LibraryError, match=r"kernel\.so"):
        Session(tiny_directory, kernel_library(tmp_path / "kernel.so"))


def kernel_library(path: Path) -> Path:
    """A library TVM made, but not of a model."""
    x = te.placeholder((4,), "float32", name="x")
    y = te.compute((4,), lambda i: x[i] + 1, name="y")
    tvm.compile(te.create_prim_func([x, y]), target="llvm").export_library(str(path))
    return path
