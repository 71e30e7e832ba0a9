"""What a worker needs of a model, and where each kind is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .messages import ContenderSettings, Logits


class TextModel(Protocol):
    """One sequence of tokens and its KV cache."""

    def prefill(self, token_ids: Sequence[int]) -> Logits:
        """Forget everything and read a prompt; logits after its last token."""
        ...

    def decode(self, token_id: int) -> Logits:
        """Append a token; logits after it."""
        ...

    def rollback(self, num_tokens: int) -> None:
        """Forget the newest tokens."""
        ...


def load_text_model(settings: ContenderSettings) -> TextModel:
    """Load a contender. A process has only one, so no other's libraries are imported.

    Raises the kind's errors: `WeightsError`, `LibraryError`, `ConfigError`.
    """
    if settings.kind == "compiled":
        from .compiled import CompiledModel

        return CompiledModel(settings)
    if settings.kind == "hugging_face":
        from .hugging_face import HuggingFaceModel

        return HuggingFaceModel(settings)
    import llama_cpp

    from .llama_cpp_model import LlamaCppModel

    return LlamaCppModel(settings, llama_cpp)
