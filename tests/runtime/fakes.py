"""Stand-ins for a model, a tokenizer and a template: small, deterministic, and as strict as the
protocols they implement."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from shadowattn_tvm.errors import ConfigError, ContextOverflowError
from shadowattn_tvm.runtime.assistant import Assistant
from shadowattn_tvm.runtime.messages import Message
from shadowattn_tvm.runtime.pairs import PairCounter, PairCounts
from shadowattn_tvm.runtime.sampling import Logits, SamplingParams
from shadowattn_tvm.runtime.settings import Settings
from shadowattn_tvm.runtime.stop import StopConditions

NUM_BYTES = 256
START, END = 256, 257
"""Special tokens of `ByteTokenizer`, spelled <s> and </s>."""
VOCAB = 258
_SPECIAL = {"<s>": START, "</s>": END}


class ByteTokenizer:
    """One token per UTF-8 byte, and two special tokens."""

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        while text:
            special = next((s for s in _SPECIAL if text.startswith(s)), None)
            piece = special or text[0]
            ids += [_SPECIAL[special]] if special else piece.encode("utf-8")
            text = text[len(piece) :]
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(i for i in token_ids if i < NUM_BYTES).decode("utf-8", errors="replace")


class TurnTemplate:
    """Every message is `<s>` role, colon, content `</s>`; then the assistant's opening."""

    def render(self, messages: Sequence[Message]) -> str:
        if any(m.content == "unrenderable" for m in messages):
            raise ConfigError("the template refuses this message")
        return "".join(f"<s>{m.role}:{m.content}</s>" for m in messages) + "<s>assistant:"


class FakeModel:
    """A `TokenModel` whose next token is any function of the whole history.

    Logits are noise derived from the history, with the chosen token on top: equal histories give
    equal logits. `before_forward(position, count)` runs in the middle of each forward pass and
    may raise.
    """

    def __init__(
        self,
        next_token: Callable[[Sequence[int]], int],
        context_window_tokens: int = 512,
        before_forward: Callable[[int, int], None] = lambda position, count: None,
    ) -> None:
        self._next_token = next_token
        self._before_forward = before_forward
        self._tokens: list[int] = []
        self._counter = PairCounter(None, 1)
        self.context_window_tokens = context_window_tokens
        self.prefill_pairs = PairCounts()
        self.forwarded: list[tuple[int, ...]] = []

    @property
    def tokens(self) -> Sequence[int]:
        return tuple(self._tokens)

    @property
    def position(self) -> int:
        return len(self._tokens)

    def prefill(self, token_ids: Sequence[int]) -> Logits:
        logits = self._forward(token_ids)
        num_past = self.position - len(token_ids)
        self.prefill_pairs += self._counter.chunk(num_past, len(token_ids))
        return logits

    def decode(self, token_id: int) -> Logits:
        return self._forward([token_id])

    def rollback(self, num_tokens: int) -> None:
        assert 0 <= num_tokens <= self.position
        del self._tokens[self.position - num_tokens :]

    def _forward(self, token_ids: Sequence[int]) -> Logits:
        assert len(token_ids) > 0
        assert all(0 <= i < VOCAB for i in token_ids)
        if self.position + len(token_ids) > self.context_window_tokens:
            raise ContextOverflowError("the fake's cache is full")
        self._before_forward(self.position, len(token_ids))
        self._tokens += token_ids
        self.forwarded.append(tuple(token_ids))
        return logits_of(self._tokens, self._next_token(self._tokens))


def logits_of(history: Sequence[int], best: int) -> Logits:
    """Noise below 1 that depends on the history, and 2 for the best token."""
    logits = np.random.default_rng(list(history)).random(VOCAB, dtype=np.float32)
    logits[best] = 2.0
    return logits


def speaking(answer: str) -> Callable[[Sequence[int]], int]:
    """A next-token function that says `answer` and the end token after every opening."""
    opening = ByteTokenizer().encode("<s>assistant:")
    spoken = [*ByteTokenizer().encode(answer), END]

    def next_token(history: Sequence[int]) -> int:
        for said in range(min(len(spoken), len(history))):
            end = len(history) - said
            if list(history[end - len(opening) : end]) == opening:
                return spoken[said] if list(history[end:]) == spoken[:said] else END
        return END

    return next_token


def assistant_of(model: FakeModel, **settings: object) -> Assistant:
    """An assistant over the fakes, greedy unless told otherwise."""
    defaults = Settings(sampling=SamplingParams(temperature=0.0)).with_values(settings)
    return Assistant(
        model=model,
        tokenizer=ByteTokenizer(),
        template=TurnTemplate(),
        stop=StopConditions(token_ids=frozenset({END})),
        defaults=defaults,
    )
