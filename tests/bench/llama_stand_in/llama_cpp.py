"""Stands in for llama-cpp-python where a test puts this folder on the path.

The same few names, over a compiled library that `STAND_IN_MODEL` and `STAND_IN_LIBRARY` give:
logits it returns are those of the tokens evaluated so far.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import open_model_directory


class Llama:
    def __init__(self, model_path: str, *, n_ctx: int, flash_attn: bool, **others: Any) -> None:
        assert flash_attn
        assert others == {"n_threads": 1, "n_threads_batch": 1, "verbose": False}
        assert Path(model_path).is_file()
        self._session = Session(
            open_model_directory(Path(os.environ["STAND_IN_MODEL"])),
            Path(os.environ["STAND_IN_LIBRARY"]),
            context_window_size=n_ctx,
        )
        self.n_tokens = 0
        self.ctx = self
        print("a library that says something on stdout")

    def reset(self) -> None:
        self.n_tokens = 0

    def eval(self, tokens: list[int]) -> None:
        self._session.rollback(self._session.position - self.n_tokens)
        self.logits = self._session.prefill(tokens)
        self.n_tokens += len(tokens)

    def n_vocab(self) -> int:
        return len(self.logits)


def llama_get_logits_ith(ctx: Llama, index: int) -> Any:
    assert index == -1
    return ctx.logits.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
