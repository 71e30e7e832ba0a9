"""Greedy decoding with Hugging Face, and honest comparison with another's tokens.

Two correct float32 implementations can pick different tokens where the two best logits nearly tie,
and from there on their texts differ. So a comparison says where they part and by how much the
golden model preferred its own token; the test that compares decides how close a tie excuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from numpy.typing import NDArray


@dataclass(frozen=True)
class GreedyRun:
    """A greedy continuation.

    Attributes
    ----------
    tokens : the tokens picked, in order.
    logits : `[len(tokens), vocab_size]` float32, what each was picked from.
    """

    tokens: tuple[int, ...]
    logits: NDArray[np.float32]

    @property
    def margins(self) -> NDArray[np.float32]:
        """Per step, the best logit minus the second best."""
        second, best = np.partition(self.logits, -2, axis=-1)[:, -2:].T
        return best - second


@dataclass(frozen=True)
class Divergence:
    """The first step at which other tokens differ from the golden ones.

    `margin` is the golden logit of the golden token minus that of the other's token.
    """

    step: int
    golden_token: int
    other_token: int
    margin: float

    def __str__(self) -> str:
        return (
            f"step {self.step}: golden token {self.golden_token}, got {self.other_token}, "
            f"which the golden model rates {self.margin:.2e} lower"
        )


def greedy(
    model: transformers.LlamaForCausalLM, token_ids: Sequence[int], num_tokens: int
) -> GreedyRun:
    """`num_tokens` greedy tokens after `token_ids`, with a KV cache and without stopping at any
    end-of-text token. Of equal logits the lower token id wins."""
    tokens: list[int] = []
    logits = []
    cache = None
    fresh = torch.tensor([list(token_ids)])
    with torch.inference_mode():
        for _ in range(num_tokens):
            output = model(fresh, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            logits.append(output.logits[0, -1].numpy())
            tokens.append(int(np.argmax(logits[-1])))
            fresh = torch.tensor([tokens[-1:]])
    return GreedyRun(tuple(tokens), np.stack(logits))


def first_divergence(golden: GreedyRun, tokens: Sequence[int]) -> Divergence | None:
    """Where `tokens` first differ from the golden ones, or None. Both must be as long."""
    for step, (want, got) in enumerate(zip(golden.tokens, tokens, strict=True)):
        if want != got:
            row = golden.logits[step]
            return Divergence(step, want, got, float(row[want] - row[got]))
    return None
