"""q0f16 and q4f16_1 from weights to logits, beside the same weights computed in float32.

Between kernels a float16 model rounds some eight times a layer, each time by at most half a unit of
2^-11 of a number: two dozen times in this one of three layers. Were all of them in step, that would
be 1.2 % of a number; they aren't, and the largest logit stands for the numbers they add up to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.compiler.kernel_parameters import attention_spec, shadow_spec
from shadowattn_tvm.config.chat_config import Quantization, is_quantized
from shadowattn_tvm.evaluate.baselines.full import Full
from shadowattn_tvm.evaluate.open_model import open_model
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory, load_parameters
from shadowattn_tvm.weights.dequantize import plain_parameters
from shadowattn_tvm.weights.group_quantize import quantize_q4
from shadowattn_tvm.weights.layout import quantized_names
from tests.calibrate.tiny_model import tiny_config, tiny_parameters, write_tiny_model
from tests.plan.tiny_plan import make_plan

TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 150))
DECODED = 5
SPARSE = 0.25
HALF_QUANTIZATIONS: tuple[Quantization, ...] = ("q0f16", "q4f16_1")
TOLERANCE = 0.01
"""Of the largest logit."""

every_quantization = pytest.mark.parametrize("quantization", HALF_QUANTIZATIONS)


def stored_parameters(quantization: Quantization) -> dict[str, NDArray[Any]]:
    """`tiny_parameters` as a conversion stores them."""
    stored: dict[str, NDArray[Any]] = {}
    for name, values in tiny_parameters(tiny_config()).items():
        if is_quantized(quantization) and values.ndim == 2:
            stored |= zip(quantized_names(name), quantize_q4(values, "float16"), strict=True)
        else:
            stored[name] = values.astype(np.float16)
    return stored


@pytest.fixture(scope="module")
def half_directory(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Quantization], ModelDirectory]:
    @cache
    def made(quantization: Quantization) -> ModelDirectory:
        folder = tmp_path_factory.mktemp(quantization)
        parameters = stored_parameters(quantization)
        return write_tiny_model(
            folder, tiny_config(), parameters=parameters, quantization=quantization
        )

    return made


@pytest.fixture(scope="module")
def half_library(
    half_directory: Callable[[Quantization], ModelDirectory],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Quantization, float | None], Path]:
    """By quantization and keep ratio (None: dense)."""
    folder = tmp_path_factory.mktemp("libraries")

    @cache
    def compiled(quantization: Quantization, keep_ratio: float | None) -> Path:
        directory = half_directory(quantization)
        plan = None if keep_ratio is None else make_plan(directory, keep_ratio)
        output = folder / f"{quantization}-{keep_ratio}.so"
        return compile_library(directory, plan, output=output).path

    return compiled


def logits(directory: ModelDirectory, library: Path) -> NDArray[np.float32]:
    """After a prefill of several chunks, and after a decoded token."""
    session = Session(directory, library)
    return np.stack([session.prefill(TOKENS), session.decode(DECODED)])


@every_quantization
def test_logits_are_those_of_float32_arithmetic(
    quantization: Quantization,
    half_directory: Callable[[Quantization], ModelDirectory],
    half_library: Callable[[Quantization, float | None], Path],
    tmp_path: Path,
) -> None:
    directory = half_directory(quantization)
    exact = write_tiny_model(
        tmp_path, tiny_config(), parameters=dict(plain_parameters(load_parameters(directory)))
    )
    expected = logits(exact, compile_library(exact, None, output=tmp_path / "exact.so").path)
    got = logits(directory, half_library(quantization, None))
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()
    np.testing.assert_array_equal(got.argmax(-1), expected.argmax(-1))


@every_quantization
def test_keeping_everything_gives_the_dense_logits(
    quantization: Quantization,
    half_directory: Callable[[Quantization], ModelDirectory],
    half_library: Callable[[Quantization, float | None], Path],
) -> None:
    directory = half_directory(quantization)
    dense = logits(directory, half_library(quantization, None))
    everything = logits(directory, half_library(quantization, 1.0))
    np.testing.assert_array_equal(everything, dense)


def test_sparse_decode_of_float16_pages(
    half_directory: Callable[[Quantization], ModelDirectory],
    half_library: Callable[[Quantization, float | None], Path],
    tmp_path: Path,
) -> None:
    """With the shadow of K beside the keys, but everything kept: the dense logits."""
    directory = half_directory("q0f16")
    plan = make_plan(directory, 1.0).model_copy(update={"decode": "sparse"})
    library = compile_library(directory, plan, output=tmp_path / "sparse.so").path
    dense = logits(directory, half_library("q0f16", None))
    np.testing.assert_array_equal(logits(directory, library), dense)


def test_attention_is_exchanged_as_in_float32_models(
    half_directory: Callable[[Quantization], ModelDirectory],
    half_library: Callable[[Quantization, float | None], Path],
) -> None:
    directory = half_directory("q0f16")
    model = open_model(directory, context_tokens=256, prefill_chunk_tokens=16)
    dense = logits(directory, half_library("q0f16", None))[0]
    np.testing.assert_array_equal(model.session.prefill(TOKENS), dense)
    # a plan's kernel
    model.use_plan(shadow_spec(make_plan(directory, SPARSE), directory.architecture))
    model.session.reset()
    sparse = logits(directory, half_library("q0f16", SPARSE))[0]
    np.testing.assert_array_equal(model.session.prefill(TOKENS), sparse)
    assert np.abs(sparse - dense).max() > TOLERANCE * np.abs(dense).max()
    # a function in Python, which sees float32
    model.use(Full(attention_spec(directory.architecture)))
    model.session.reset()
    error = np.abs(model.session.prefill(TOKENS) - dense).max()
    assert error < TOLERANCE * np.abs(dense).max()
