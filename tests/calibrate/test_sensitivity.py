from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from shadowattn_tvm.calibrate import ReferenceModel, dense_attention
from shadowattn_tvm.calibrate.sensitivity import trace_attention
from shadowattn_tvm.errors import WeightsError

from .tiny_model import tiny_config, tiny_parameters

CONFIG = tiny_config()
IDS = np.random.default_rng(3).integers(0, 256, 40)


def loss_with(model: ReferenceModel, layer: int, change: Tensor) -> float:
    """The window's loss, summed over tokens, with `change` added to one layer's attention."""

    def attend(at: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        output = dense_attention(at, q, k, v)
        return output + change if at == layer else output

    with torch.inference_mode():
        logits = model.logits(model.prefill(IDS, chunk_tokens=len(IDS), attend=attend)).double()
    targets = torch.from_numpy(IDS[1:])
    return float(functional.cross_entropy(logits[:-1], targets, reduction="sum"))


def test_gradients_equal_finite_differences() -> None:
    model = ReferenceModel(CONFIG, tiny_parameters(CONFIG))
    traces = trace_attention(model, IDS)
    generator = torch.Generator().manual_seed(1)
    assert len(traces) == CONFIG.num_hidden_layers
    for layer, trace in enumerate(traces):
        for head in range(6):
            change = torch.zeros_like(trace.output)
            change[head] = 1e-2 * torch.randn(trace.output[head].shape, generator=generator)
            rise = loss_with(model, layer, change) - loss_with(model, layer, -change)
            want = float((trace.gradient * change).sum())
            assert rise / 2 == pytest.approx(want, rel=2e-2, abs=2e-3)


def test_traces_hold_what_attention_saw() -> None:
    model = ReferenceModel(CONFIG, tiny_parameters(CONFIG))
    for trace in trace_attention(model, IDS):
        assert not any(x.requires_grad for x in (trace.q, trace.k, trace.v, trace.output))
        torch.testing.assert_close(
            dense_attention(0, trace.q, trace.k, trace.v), trace.output, atol=1e-5, rtol=1e-4
        )


def test_weights_that_yield_no_gradient_are_refused() -> None:
    parameters = tiny_parameters(CONFIG)
    parameters["model.norm.weight"][0] = np.nan
    with pytest.raises(WeightsError, match="layer 0: expected finite gradients"):
        trace_attention(ReferenceModel(CONFIG, parameters), IDS)
