"""q0f16 and q4f16_1 from weights to logits, beside the same weights computed in float32.

Between kernels a float16 model rounds some eight times a layer, each time by at most 2^-11 of a
number: two dozen times in this one of three layers. Were all of them in step, that would be 1.2 %
of a number; they are not, and the largest logit stands for the numbers they add up to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.compiler.kernel_parameters import attention_spec, shadow_spec
from shadowattn_tvm.config.chat_config import Quantization
from shadowattn_tvm.evaluate.baselines.full import Full
from shadowattn_tvm.evaluate.open_model import open_model
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory, load_parameters
from shadowattn_tvm.weights.dequantize import plain_parameters
from tests.calibrate.tiny_model import stored_parameters, tiny_config, write_tiny_model
from tests.plan.tiny_plan import make_plan

TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 150))
DECODED = 5
TOLERANCE = 0.01
"""Of the largest logit."""

every_quantization = pytest.mark.parametrize("quantization", ["q0f16", "q4f16_1"])


@pytest.fixture(scope="module")
def half_directory(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Quantization], ModelDirectory]:
    @cache
    def made(quantization: Quantization) -> ModelDirectory:
        folder = tmp_path_factory.mktemp(quantization)
        parameters = stored_parameters(tiny_config(), quantization)
        return write_tiny_model(
            folder, tiny_config(), parameters=parameters, quantization=quantization
        )

    return made


@pytest.fixture(scope="module")
def dense_logits(
    half_directory: Callable[[Quantization], ModelDirectory],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Quantization], NDArray[np.float32]]:
    """`logits` of the dense library."""
    folder = tmp_path_factory.mktemp("libraries")

    @cache
    def computed(quantization: Quantization) -> NDArray[np.float32]:
        directory = half_directory(quantization)
        library = compile_library(directory, None, output=folder / f"{quantization}.so").path
        return logits(Session(directory, library))

    return computed


def logits(session: Session) -> NDArray[np.float32]:
    """After a prefill of several chunks, and after a decoded token."""
    return np.stack([session.prefill(TOKENS), session.decode(DECODED)])


@every_quantization
def test_logits_are_those_of_float32_arithmetic(
    quantization: Quantization,
    half_directory: Callable[[Quantization], ModelDirectory],
    dense_logits: Callable[[Quantization], NDArray[np.float32]],
    tiny_directory: ModelDirectory,
    tiny_library: Path,
) -> None:
    plain = plain_parameters(load_parameters(half_directory(quantization)))
    weights = {name: tvm.runtime.tensor(values) for name, values in plain}
    expected = logits(Session(tiny_directory, tiny_library, weights=weights))
    got = dense_logits(quantization)
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()
    np.testing.assert_array_equal(got.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize(("quantization", "decode"), [("q4f16_1", "dense"), ("q0f16", "sparse")])
def test_keeping_everything_gives_the_dense_logits(
    quantization: Quantization,
    decode: str,
    half_directory: Callable[[Quantization], ModelDirectory],
    dense_logits: Callable[[Quantization], NDArray[np.float32]],
    tmp_path: Path,
) -> None:
    """Sparse decode has the shadow of K beside the keys, in rows of float16."""
    directory = half_directory(quantization)
    plan = make_plan(directory, 1.0).model_copy(update={"decode": decode})
    library = compile_library(directory, plan, output=tmp_path / "everything.so").path
    np.testing.assert_array_equal(logits(Session(directory, library)), dense_logits(quantization))


def test_attention_is_exchanged_as_in_float32_models(
    half_directory: Callable[[Quantization], ModelDirectory],
    dense_logits: Callable[[Quantization], NDArray[np.float32]],
) -> None:
    directory, dense = half_directory("q0f16"), dense_logits("q0f16")[0]
    model = open_model(directory, context_tokens=256, prefill_chunk_tokens=16)
    np.testing.assert_array_equal(model.session.prefill(TOKENS), dense)
    largest = np.abs(dense).max()

    def error() -> np.float32:
        model.session.reset()
        return np.abs(model.session.prefill(TOKENS) - dense).max()

    # a function in Python, which sees float32
    model.use(Full(attention_spec(directory.architecture)))
    assert error() < TOLERANCE * largest
    # a plan's kernel
    model.use_plan(shadow_spec(make_plan(directory), directory.architecture))
    assert TOLERANCE * largest < error() < largest
