"""The same checkpoint in Hugging Face transformers: the golden answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from shadowattn_tvm.contenders.hugging_face import HFModel, hf_model, hf_model_of_parameters

__all__ = ["hf_logits", "hf_model", "hf_model_of_parameters"]


def hf_logits(model: HFModel, token_ids: Sequence[int]) -> torch.Tensor:
    """Logits `[tokens, vocab_size]` of one whole sequence."""
    with torch.inference_mode():
        return model(torch.tensor([token_ids]), use_cache=False).logits[0]
