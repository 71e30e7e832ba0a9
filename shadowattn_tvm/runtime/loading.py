"""From files to something one can talk to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..config.chat_config import ChatConfig
from ..weights import ModelDirectory
from .assistant import Assistant
from .chat_template import find_chat_template
from .conv_template import ConvTemplate
from .library_metadata import LibraryMetadata
from .machine import Machine
from .protocol import PromptTemplate
from .sampling import SamplingParams
from .session import Session
from .settings import Settings
from .stop import StopConditions
from .tokenizer import ModelTokenizer

LibraryCheck = Callable[[LibraryMetadata, Path], None]
"""Raises `LibraryError` for a library the caller doesn't want."""


def open_assistant(
    directory: ModelDirectory,
    library_path: Path,
    *,
    context_window_size: int | None = None,
    prefill_chunk_size: int | None = None,
    machine: Machine | None = None,
    require: LibraryCheck = lambda metadata, path: None,
) -> Assistant:
    """Load a library with its weights, tokenizer and chat template. It runs on `machine`; on this
    one if not given.

    The model's Jinja template is used if it has one, else the `conv_template` of its
    `mlc-chat-config.json`. Raises `LibraryError`, `WeightsError`, `ConfigError`.
    """
    config = directory.chat_config
    tokenizer = ModelTokenizer.from_directory(directory.path)
    template = find_template(directory, tokenizer)
    session = Session(
        directory,
        library_path,
        context_window_size=context_window_size,
        prefill_chunk_size=prefill_chunk_size,
        machine=machine,
    )
    require(session.metadata, library_path)
    return Assistant(
        model=session,
        tokenizer=tokenizer,
        template=template,
        stop=StopConditions(
            token_ids=frozenset(config.stop_token_ids),
            strings=tuple(filter(None, config.conv_template.stop_str)),
        ),
        defaults=default_settings(config),
    )


def find_template(directory: ModelDirectory, tokenizer: ModelTokenizer) -> PromptTemplate:
    """The model's own template, else its conversation layout. Raises `ConfigError`."""
    jinja = find_chat_template(directory.path)
    if jinja is not None:
        jinja.prepare()  # while the weights are loaded
        return jinja
    layout = directory.chat_config.conv_template
    prefix = "".join(map(tokenizer.token_text, layout.system_prefix_token_ids or ()))
    return ConvTemplate(layout, prefix)


def default_settings(config: ChatConfig) -> Settings:
    """What the model's authors recommend; where they say nothing, plain sampling."""
    named = {
        name: getattr(config, name)
        for name in (
            "temperature",
            "top_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
        )
    }
    given = {name: value for name, value in named.items() if value is not None}
    return Settings(sampling=SamplingParams(**given))
