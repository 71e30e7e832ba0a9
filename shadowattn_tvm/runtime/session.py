"""A session: one conversation's tokens in a compiled model, on the Relax virtual machine.

The session's list of tokens is the truth; the KV cache may only be ahead of it, by what was taken
back or by a forward pass that was torn (an error, Ctrl-C), and is trimmed to it before use. That
is what makes every method all or nothing without locks or flags.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from tir_kernels.constants import PAGE_SIZE_TOKENS

from ..errors import ConfigError, ContextOverflowError
from ..weights import ModelDirectory
from .library import ModelLibrary
from .machine import Machine, ThisMachine, Weights
from .pairs import PairCounter, PairCounts
from .sampling import Logits
from .threads import use_physical_cores

LogitRows = NDArray[np.float32]
"""Logits of several tokens, (tokens, vocab) float32."""

LOGIT_ROWS = 64
"""Positions whose logits are held at once: 12 MiB with a vocabulary of 49k."""

_SEQUENCE = 0
"""The cache can hold several sequences; a session is one."""


class Session:
    """A `TokenModel` (see `protocol`) over a compiled library.

    Parameters
    ----------
    directory : the weights.
    library_path : the compiled library.
    context_window_size, prefill_chunk_size : in tokens, at most the library's, which are the
        defaults.
    weights : from `load_weights`, to be shared by several sessions; loaded if not given.
    machine : where the library runs; this machine if not given.

    Raises `LibraryError` if the library can't be loaded or doesn't fit the weights, `WeightsError`
    if they can't be read, `ConfigError` for limits out of range.
    """

    def __init__(
        self,
        directory: ModelDirectory,
        library_path: Path,
        *,
        context_window_size: int | None = None,
        prefill_chunk_size: int | None = None,
        weights: Weights | None = None,
        machine: Machine | None = None,
    ) -> None:
        use_physical_cores()
        machine = machine or ThisMachine()
        library = ModelLibrary(library_path, machine)
        library.require_fit(directory)
        metadata, config = library.metadata, directory.chat_config
        self.library_path = library_path
        self.metadata = metadata
        self.context_window_tokens = _limit(
            "context_window_size",
            context_window_size,
            metadata.context_window_size,
        )
        self.prefill_chunk_tokens = _limit(
            "prefill_chunk_size",
            prefill_chunk_size,
            metadata.prefill_chunk_size,
        )
        self._vocab_size = config.active_vocab_size or config.vocab_size
        self._machine = machine
        self._library = library
        self._embed, self._prefill, self._decode = map(
            library.function, ("embed", "prefill", "decode")
        )
        self._parameters = machine.parameters(
            directory, [parameter.name for parameter in metadata.params], weights
        )
        self._cache = library.function("create_tir_paged_kv_cache")(
            machine.shape(1),  # sequences
            machine.shape(self.context_window_tokens),
            machine.shape(min(self.prefill_chunk_tokens, self.context_window_tokens)),
            machine.shape(PAGE_SIZE_TOKENS),
            machine.shape(0),  # no sliding window
        )
        machine.builtin("kv_state_add_sequence")(self._cache, _SEQUENCE)
        self._begin = machine.builtin("kv_state_begin_forward")
        self._end = machine.builtin("kv_state_end_forward")
        self._pop = machine.builtin("kv_state_popn")
        self._cached_tokens = machine.builtin("attention_kv_cache_get_total_sequence_length")
        shadow = metadata.shadow_attn
        self._pair_counter = (
            PairCounter(shadow.keep_ratio_q16, shadow.k_min) if shadow else PairCounter(None, 1)
        )
        self._pairs = PairCounts()
        self._tokens: list[int] = []

    @property
    def tokens(self) -> Sequence[int]:
        """The token ids in the cache, oldest first."""
        return tuple(self._tokens)

    @property
    def position(self) -> int:
        """How many tokens the cache holds."""
        return len(self._tokens)

    @property
    def prefill_pairs(self) -> PairCounts:
        """Pairs of all prefills since the session was opened."""
        return self._pairs

    def prefill(self, token_ids: Sequence[int]) -> Logits:
        """Append tokens in chunks of `prefill_chunk_tokens`; logits (vocab,) float32 after the
        last.

        Raises `ContextOverflowError` if they don't fit and `ConfigError` if there are none or one
        is outside the vocabulary, before anything is computed. Whatever interrupts it, the
        session is as before.
        """
        results: deque[Any] = deque(maxlen=1)
        self._prefill_chunks(self._prefill, token_ids, results.append)
        logits: Logits = self._values(results[0])[0]
        return logits

    def prefill_every_position(
        self, token_ids: Sequence[int], consume: Callable[[Sequence[int], LogitRows], None]
    ) -> None:
        """Like `prefill`, but hand over the logits after every token: `consume(positions, logits)`
        is called in order, with the positions of at most `LOGIT_ROWS` tokens in `token_ids` and
        their logits, (positions, vocab) float32.

        Raises like `prefill`, `LibraryError` for a library without the functions this takes, and
        what `consume` raises.
        """
        hidden_states = self._library.function("prefill_to_last_hidden_states")
        get_logits = self._library.function("get_logits")
        start = self.position

        def consume_chunk(hidden: Any) -> None:
            rows = hidden.numpy()[0]  # (tokens, hidden)
            first = self.position - len(rows) - start
            for begin in range(0, len(rows), LOGIT_ROWS):
                part = tvm.runtime.tensor(rows[begin : begin + LOGIT_ROWS], self._machine.device)
                logits = self._values(get_logits(part, self._parameters))
                consume(range(first + begin, first + begin + len(logits)), logits)

        self._prefill_chunks(hidden_states, token_ids, consume_chunk)

    def decode(self, token_id: int) -> Logits:
        """Append one token; logits (vocab,) float32 after it. Raises like `prefill`."""
        self._require_room((token_id,))
        logits: Logits = self._values(self._forward(self._decode, (token_id,)))[0]
        return logits

    def rollback(self, num_tokens: int) -> None:
        """Forget the newest `num_tokens` tokens. Raises `ConfigError` if there are fewer."""
        if not 0 <= num_tokens <= self.position:
            raise ConfigError(
                f"expected to take back 0 to {self.position} tokens, got {num_tokens}"
            )
        del self._tokens[self.position - num_tokens :]

    def reset(self) -> None:
        """Forget all tokens."""
        self._tokens.clear()

    def _prefill_chunks(
        self,
        function: Callable[..., Any],
        token_ids: Sequence[int],
        consume: Callable[[Any], None],
    ) -> None:
        """Append tokens chunk by chunk and hand over the first result of `function` over each.
        Whatever interrupts it, the session is as before."""
        self._require_room(token_ids)
        start, pairs = self.position, self._pairs
        try:
            for begin in range(0, len(token_ids), self.prefill_chunk_tokens):
                chunk = token_ids[begin : begin + self.prefill_chunk_tokens]
                self._pairs += self._pair_counter.chunk(self.position, len(chunk))
                consume(self._forward(function, chunk))
        except BaseException:
            del self._tokens[start:]
            self._pairs = pairs
            raise

    def _require_room(self, token_ids: Sequence[int]) -> None:
        if not token_ids:
            raise ConfigError("expected at least one token, got none")
        total = self.position + len(token_ids)
        if total > self.context_window_tokens:
            raise ContextOverflowError(
                f"expected at most {self.context_window_tokens} tokens in the context window, got "
                f"{self.position} and {len(token_ids)} more; start a new conversation, or compile "
                "a library with a larger context_window_size"
            )
        outside = [i for i in (min(token_ids), max(token_ids)) if not 0 <= i < self._vocab_size]
        if outside:
            raise ConfigError(
                f"expected token ids from 0 to {self._vocab_size - 1}, got {outside[0]}; the "
                "tokenizer and the weights don't belong together"
            )

    def _forward(self, function: Callable[..., Any], token_ids: Sequence[int]) -> Any:
        """Run one function over tokens appended to the cache; its first result."""
        surplus = self._cached_tokens(self._cache) - self.position
        if surplus:
            self._pop(self._cache, _SEQUENCE, surplus)
        num_tokens = len(token_ids)
        machine = self._machine
        self._begin(self._cache, machine.shape(_SEQUENCE), machine.shape(num_tokens))
        ids = tvm.runtime.tensor(np.asarray(token_ids, dtype=np.int32), machine.device)
        embedded = self._embed(ids, self._parameters)  # (num_tokens, hidden)
        embedded = machine.reshape(embedded, (1, num_tokens, embedded.shape[1]))
        result = machine.first(function(embedded, self._cache, self._parameters))
        self._end(self._cache)
        self._tokens.extend(token_ids)
        return result

    def _values(self, logits: Any) -> LogitRows:
        """Logits of any leading shape as (rows, vocab): without the vocabulary's padding."""
        values: LogitRows = logits.numpy()
        return values.reshape(-1, values.shape[-1])[:, : self._vocab_size]


def _limit(name: str, chosen: int | None, compiled: int) -> int:
    """A run-time limit in tokens. Raises `ConfigError` if the choice is out of range."""
    limit = compiled if chosen is None else chosen
    if not 1 <= limit <= compiled:
        raise ConfigError(
            f"expected {name} between 1 and the library's {compiled} tokens, got {limit}; a larger "
            "one must be compiled"
        )
    return limit
