"""A session: one conversation's tokens in a compiled model, on the Relax virtual machine.

The session's list of tokens is the truth; the KV cache may only be ahead of it, by what was taken
back or by a forward pass that was torn (an error, Ctrl-C), and is trimmed to it before use. That
is what makes every method all or nothing without locks or flags.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm_ffi import Shape

from tir_kernels.constants import PAGE_SIZE_TOKENS

from ..errors import ConfigError, ContextOverflowError
from ..weights import ModelDirectory, iter_parameters
from .library import ModelLibrary
from .pairs import PairCounter, PairCounts
from .sampling import Logits
from .threads import use_physical_cores

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
    ) -> None:
        use_physical_cores()
        device = tvm.cpu()
        library = ModelLibrary(library_path, device)
        library.require_fit(directory)
        metadata, config = library.metadata, directory.chat_config
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
        self._device = device
        self._embed, self._prefill, self._decode = map(
            library.function, ("embed", "prefill", "decode")
        )
        self._parameters = _load(directory, library, device)
        self._cache = library.function("create_tir_paged_kv_cache")(
            Shape([1]),  # sequences
            Shape([self.context_window_tokens]),
            Shape([min(self.prefill_chunk_tokens, self.context_window_tokens)]),
            Shape([PAGE_SIZE_TOKENS]),
            Shape([0]),  # no sliding window
        )
        _builtin("kv_state_add_sequence")(self._cache, _SEQUENCE)
        self._begin = _builtin("kv_state_begin_forward")
        self._end = _builtin("kv_state_end_forward")
        self._pop = _builtin("kv_state_popn")
        self._cached_tokens = _builtin("attention_kv_cache_get_total_sequence_length")
        self._reshape = _builtin("reshape")
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
        self._require_room(token_ids)
        start, pairs = self.position, self._pairs
        try:
            for begin in range(0, len(token_ids), self.prefill_chunk_tokens):
                chunk = token_ids[begin : begin + self.prefill_chunk_tokens]
                self._pairs += self._pair_counter.chunk(self.position, len(chunk))
                logits = self._forward(self._prefill, chunk)
        except BaseException:
            del self._tokens[start:]
            self._pairs = pairs
            raise
        return logits

    def decode(self, token_id: int) -> Logits:
        """Append one token; logits (vocab,) float32 after it. Raises like `prefill`."""
        self._require_room((token_id,))
        return self._forward(self._decode, (token_id,))

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

    def _forward(self, function: Callable[..., Any], token_ids: Sequence[int]) -> Logits:
        """Run one function over tokens appended to the cache; logits after the last of them."""
        surplus = self._cached_tokens(self._cache) - self.position
        if surplus:
            self._pop(self._cache, _SEQUENCE, surplus)
        num_tokens = len(token_ids)
        self._begin(self._cache, Shape([_SEQUENCE]), Shape([num_tokens]))
        ids = tvm.runtime.tensor(np.asarray(token_ids, dtype=np.int32), self._device)
        embedded = self._embed(ids, self._parameters)  # (num_tokens, hidden)
        embedded = self._reshape(embedded, Shape([1, num_tokens, embedded.shape[1]]))
        logits, _ = function(embedded, self._cache, self._parameters)  # (1, 1, vocab) float32
        self._end(self._cache)
        values: Logits = logits.numpy().reshape(-1)[: self._vocab_size]
        self._tokens.extend(token_ids)
        return values


def _builtin(name: str) -> Callable[..., Any]:
    """A function of TVM's virtual machine."""
    function: Callable[..., Any] = tvm.get_global_func(f"vm.builtin.{name}")
    return function


def _limit(name: str, chosen: int | None, compiled: int) -> int:
    """A run-time limit in tokens. Raises `ConfigError` if the choice is out of range."""
    limit = compiled if chosen is None else chosen
    if not 1 <= limit <= compiled:
        raise ConfigError(
            f"expected {name} between 1 and the library's {compiled} tokens, got {limit}; a larger "
            "one must be compiled"
        )
    return limit


def _load(
    directory: ModelDirectory, library: ModelLibrary, device: tvm.runtime.Device
) -> list[tvm.runtime.Tensor]:
    """The parameters in the library's order. Each is copied once, from the mapped file to memory
    aligned for the kernels, so the weights are never held twice."""
    loaded = {name: tvm.runtime.tensor(array, device) for name, array in iter_parameters(directory)}
    return [loaded[parameter.name] for parameter in library.metadata.params]
