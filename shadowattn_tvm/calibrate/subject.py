"""What a calibration runs: the model, the windows of text, the size of its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..corpora import Document, Window, sample_windows
from ..errors import ConfigError
from ..runtime.tokenizer import ModelTokenizer
from ..weights import ModelDirectory
from .reference_model import ReferenceModel
from .settings import DEFAULT_WINDOW_TOKENS, CalibrationSettings

_SCALE_WINDOWS = 8
"""On SmolLM2-135M twice as many move no scale by more than 5 %, a fraction of a bucket."""


@dataclass(frozen=True)
class Subject:
    """A model and the windows it is calibrated on.

    Attributes
    ----------
    directory : where the model is from.
    documents : the corpus, for a method that samples windows of its own.
    model : it, in torch.
    windows : all of `window_tokens` tokens.
    prefill_chunk_tokens : less than `window_tokens`, so that chunks have a past.
    """

    directory: ModelDirectory
    documents: tuple[Document, ...]
    model: ReferenceModel
    windows: tuple[Window, ...]
    window_tokens: int
    prefill_chunk_tokens: int

    @property
    def windows_for_scales(self) -> tuple[Window, ...]:
        """The first of the windows: sources and documents take turns, so they are well mixed."""
        return self.windows[:_SCALE_WINDOWS]


def prepare_subject(
    directory: ModelDirectory, documents: Sequence[Document], settings: CalibrationSettings
) -> Subject:
    """Sample the windows and load the model.

    Raises `ConfigError` for sizes that can't be, documents too short for one window and a tokenizer
    of another model, all before the weights are read, and `WeightsError` as `load_parameters` does.
    """
    architecture = directory.architecture
    context_tokens = architecture.context_window_size
    window_tokens = settings.window_tokens
    if window_tokens is None:
        window_tokens = min(DEFAULT_WINDOW_TOKENS, context_tokens)
    elif not 2 <= window_tokens <= context_tokens:
        raise ConfigError(
            f"expected windows of 2 to {context_tokens} tokens (the model's context), got "
            f"{window_tokens}"
        )
    chunk_tokens = settings.prefill_chunk_tokens
    if chunk_tokens is None:
        chunk_tokens = min(directory.chat_config.prefill_chunk_size, window_tokens // 2)
    if not 0 < chunk_tokens < window_tokens:
        raise ConfigError(
            f"expected windows longer than a prefill chunk of {chunk_tokens} tokens, so that "
            f"chunks have a past to attend to, got windows of {window_tokens} tokens"
        )
    dense = settings.dense_layers
    if len(set(dense)) < len(dense) or not set(dense) <= set(range(architecture.num_hidden_layers)):
        raise ConfigError(
            f"expected different dense layers between 0 and {architecture.num_hidden_layers - 1}, "
            f"got {', '.join(map(str, dense))}"
        )
    windows = sample_windows(
        documents,
        ModelTokenizer.from_directory(directory.path),
        window_tokens=window_tokens,
        max_windows=settings.num_windows,
        prefix_ids=directory.chat_config.conv_template.system_prefix_token_ids or (),
    )
    largest_id = max(int(window.token_ids.max()) for window in windows)
    if largest_id >= architecture.vocab_size:
        raise ConfigError(
            f"{directory.path}: expected token ids below the model's vocabulary of "
            f"{architecture.vocab_size}, got {largest_id} from its tokenizer; they don't belong "
            "together"
        )
    return Subject(
        directory,
        tuple(documents),
        ReferenceModel.load(directory),
        windows,
        window_tokens,
        chunk_tokens,
    )
