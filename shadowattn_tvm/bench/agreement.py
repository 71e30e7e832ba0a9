"""Whether a contender computes what the dense library computes, before and while it is timed."""

from __future__ import annotations

import numpy as np

from ..contenders.messages import Logits
from ..errors import ConfigError
from ..evaluate.tasks.agreement import kl_divergence
from ..runtime.scoring import log_softmax
from .model_document import Agreement, ModelContenderName
from .reference import WrongResultError

MAX_KL_NATS = 0.2
"""Between distributions whose likeliest tokens differ. Other arithmetic and 20 % of the past cost
0.001 to 0.05 nats at a token; a wrong kernel costs several."""

_TORCH_TOLERANCE = 1e-2
"""Of the largest logit: two float32 implementations of 30 layers part by a hundredth of this."""


def agreement(dense: Logits, other: Logits) -> Agreement:
    """Of two distributions, (vocab,) logits each; one may be padded. Raises `LibraryError` for
    logits that aren't finite."""
    size = min(len(dense), len(other))
    kl = kl_divergence(log_softmax(dense[None, :size]), log_softmax(other[None, :size]))
    return Agreement(kl_nats=kl, same_token=int(dense.argmax()) == int(other.argmax()))


def require_agreement(name: ModelContenderName, dense: Logits, other: Logits) -> Agreement:
    """How well they agree.

    Raises `WrongResultError` for torch's logits if they aren't close and for shadowAttn's if they
    are far and pick another token, and `ConfigError` for llama.cpp's, whose file may be another
    model's.
    """
    found = agreement(dense, other)
    if name == "torch":
        size = min(len(dense), len(other))
        off = float(np.abs(dense[:size] - other[:size]).max())
        if off > _TORCH_TOLERANCE * float(np.abs(dense).max()):
            raise WrongResultError(f"torch and the dense library differ by {off:.3g} in a logit")
    elif not found.same_token and found.kl_nats > MAX_KL_NATS:
        message = (
            f"{name}: its next token is another than the dense library's, and its distribution "
            f"is {found.kl_nats:.3g} nats away"
        )
        if name == "llama_cpp":
            raise ConfigError(f"{message}; is --gguf the file that the weights were made from?")
        raise WrongResultError(message)
    return found


def worst(agreements: list[Agreement]) -> Agreement:
    """The largest divergence, and whether the tokens were always the same."""
    return Agreement(
        kl_nats=max(each.kl_nats for each in agreements),
        same_token=all(each.same_token for each in agreements),
    )
