"""What generation needs of a model, so that it can run on anything that keeps these promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .messages import Message
from .pairs import PairCounts
from .sampling import Logits


class TokenModel(Protocol):
    """A language model with a cache of the tokens it has seen; `session.Session` is the real one.

    Every method leaves the model usable and, if it raises, in the state before the call:
    `KeyboardInterrupt` included.
    """

    @property
    def context_window_tokens(self) -> int:
        """The most tokens the cache holds."""

    @property
    def tokens(self) -> Sequence[int]:
        """The token ids in the cache, oldest first."""

    @property
    def position(self) -> int:
        """How many tokens the cache holds."""

    @property
    def prefill_pairs(self) -> PairCounts:
        """Pairs of all prefills since the model was made; never decreases."""

    def prefill(self, token_ids: Sequence[int]) -> Logits:
        """Append tokens to the cache; logits (vocab,) float32 after the last of them.

        Raises `ContextOverflowError` if they don't fit, `ConfigError` if there are none or one is
        not in the vocabulary.
        """

    def decode(self, token_id: int) -> Logits:
        """Append one token; logits (vocab,) float32 after it. Raises like `prefill`."""

    def rollback(self, num_tokens: int) -> None:
        """Forget the newest `num_tokens` tokens of the cache (0 to all of them)."""


class TextTokenizer(Protocol):
    """Text to token ids and back."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a rendered prompt: special tokens in the text become their ids, none are
        added."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the tokens; special tokens are left out, broken UTF-8 shows as U+FFFD."""


class PromptTemplate(Protocol):
    """Renders a conversation to the text a model is prompted with."""

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt after which the assistant answers. Raises `ConfigError` if it can't be
        rendered."""
