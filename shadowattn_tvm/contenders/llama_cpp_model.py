"""llama.cpp, through llama-cpp-python: the GGUF file as it is, flash attention on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .messages import ContenderSettings, Logits


class LlamaCppModel:
    """See `text_model.TextModel`. Batches and the KV cache (float16) are llama.cpp's defaults.

    Parameters
    ----------
    llama_cpp : the module, or what stands in for it.
    """

    def __init__(self, settings: ContenderSettings, llama_cpp: Any) -> None:
        assert settings.file is not None
        self._llama_cpp = llama_cpp
        self._model = llama_cpp.Llama(
            settings.file,
            n_ctx=settings.context_tokens,
            n_threads=settings.threads,
            n_threads_batch=settings.threads,
            flash_attn=True,
            verbose=False,
        )

    def prefill(self, token_ids: Sequence[int]) -> Logits:
        self._model.reset()
        return self._after(token_ids)

    def decode(self, token_id: int) -> Logits:
        return self._after([token_id])

    def rollback(self, num_tokens: int) -> None:
        # `eval` drops from the cache what is beyond this count
        self._model.n_tokens -= num_tokens

    def _after(self, token_ids: Sequence[int]) -> Logits:
        self._model.eval(list(token_ids))
        pointer = self._llama_cpp.llama_get_logits_ith(self._model.ctx, -1)
        row = np.ctypeslib.as_array(pointer, shape=(self._model.n_vocab(),))
        return np.array(row, np.float32)
