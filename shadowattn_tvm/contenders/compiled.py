"""A compiled library, dense or with a plan, as `chat` runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..runtime.session import Session
from ..weights import open_model_directory
from .messages import ContenderSettings, Logits


class CompiledModel:
    """See `text_model.TextModel`. Its threads are those of `TVM_NUM_THREADS`, which whoever starts
    the process sets. Raises like `Session`."""

    def __init__(self, settings: ContenderSettings) -> None:
        assert settings.file is not None
        self._session = Session(
            open_model_directory(Path(settings.model)),
            Path(settings.file),
            context_window_size=settings.context_tokens,
            prefill_chunk_size=min(settings.prefill_chunk_tokens, settings.context_tokens),
        )

    def prefill(self, token_ids: Sequence[int]) -> Logits:
        self._session.reset()
        return self._session.prefill(token_ids)

    def decode(self, token_id: int) -> Logits:
        return self._session.decode(token_id)

    def rollback(self, num_tokens: int) -> None:
        self._session.rollback(num_tokens)
