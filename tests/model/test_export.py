"""The traced model: MLC's parameter names and functions, and shapes that agree with the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tvm
from tvm import relax

from shadowattn_tvm.config import QUANTIZATIONS, LlamaConfig
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.model import export_model
from shadowattn_tvm.weights import parameter_layout
from tests.calibrate.tiny_model import LLAMA3_SCALING, tiny_config

Make = Callable[..., LlamaConfig]

VARIANTS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "llama3": {"rope_scaling": LLAMA3_SCALING, "position_embedding_base": 500000},
    "qwen2": {"qkv_bias": True},
    "multi-head": {"num_attention_heads": 2},
}


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_parameters_are_those_the_weights_are_stored_by(
    variant: str, quantization: str, host_target: tvm.target.Target
) -> None:
    config = tiny_config(**VARIANTS[variant])
    exported = export_model(config, quantization, host_target)
    got = {
        name: (tuple(int(extent) for extent in p.shape), str(p.dtype))
        for name, p in exported.parameters
    }
    layout = parameter_layout(config, quantization)
    assert got == {name: (info.shape, info.dtype) for name, info in layout.items()}
    relax.analysis.well_formed(exported.module)


def test_an_unknown_quantization_lists_the_known(host_target: tvm.target.Target) -> None:
    with pytest.raises(ConfigError, match=r"'q3f16_1'.*q0f32, q4f32_1, q0f16, q4f16_1"):
        export_model(tiny_config(), "q3f16_1", host_target)
