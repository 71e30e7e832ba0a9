"""What is said between a worker and who started it: a JSON object a line, in turns.

The first line in is `ContenderSettings`, answered by `Ready`; then a `Request` is answered by a
`Reply`. A `Failure` in place of an answer is the worker's last line.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

Logits = NDArray[np.float32]
"""(vocab,) float32."""

ContenderKind = Literal["compiled", "hugging_face", "llama_cpp"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ContenderSettings(_Message):
    """What a worker loads.

    `model`: the model directory. `file`: the compiled library or the GGUF file; null where the
    model directory is all there is. `context_tokens`: what the KV cache holds.
    `prefill_chunk_tokens`: of compiled libraries; others read prompts as they do by themselves.
    """

    kind: ContenderKind
    model: str
    file: str | None
    threads: PositiveInt
    context_tokens: PositiveInt
    prefill_chunk_tokens: PositiveInt


class Ready(_Message):
    """The model is loaded. `memory_bytes`: what is resident now; null as in `Reply`."""

    memory_bytes: int | None


class Request(_Message):
    """`prefill`: forget everything, read these tokens. `decode`: append them one by one, and
    forget them again when all are timed."""

    action: Literal["prefill", "decode"]
    token_ids: Annotated[tuple[int, ...], Field(strict=False, min_length=1)]


class Reply(_Message):
    """`elapsed_ms`: from the tokens to the likeliest next one. `logits`: after the last token,
    float32, base64. `peak_memory_bytes`: the largest resident set since the model was loaded: its
    weights, the interpreter and all libraries are in it; null where the system doesn't tell."""

    elapsed_ms: NonNegativeFloat
    logits: str
    peak_memory_bytes: int | None


class Failure(_Message):
    """`mistake`: the user's (a message), not ours (a traceback)."""

    message: str
    mistake: bool


def pack_logits(logits: Logits) -> str:
    """As `Reply` carries them."""
    return base64.b64encode(np.ascontiguousarray(logits, "<f4").tobytes()).decode("ascii")


def unpack_logits(text: str) -> Logits:
    """The inverse of `pack_logits`."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
