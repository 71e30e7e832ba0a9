"""The model's own chat template: Jinja source from its tokenizer files, rendered at arm's length
(see `template_worker`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config.documents import read_json_object, read_text
from ..errors import ConfigError
from .messages import Message
from .template_process import TemplateProcess


class ChatTemplate:
    """A `PromptTemplate` (see `protocol`) in Jinja.

    Attributes
    ----------
    source : the template.
    special_tokens : the variables it may use, such as `bos_token`.
    where : the file it comes from, for error messages.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], where: str) -> None:
        self.source = source
        self.special_tokens = special_tokens
        self.where = where
        self._process = TemplateProcess()

    def prepare(self) -> None:
        """Start what renders, in the background, so that the first prompt need not wait."""
        self._process.start()

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt after which the assistant answers.

        Raises `ConfigError` if the template fails, reaches for Python's internals, or takes more
        memory, time or output than any conversation needs.
        """
        variables = {
            **self.special_tokens,
            "messages": [asdict(message) for message in messages],
            "add_generation_prompt": True,
            "tools": None,
        }
        try:
            return self._process.render(self.source, variables)
        except ConfigError as error:
            raise ConfigError(
                f"{self.where}: the chat template can't render this conversation: {error}"
            ) from None


def find_chat_template(directory: Path) -> ChatTemplate | None:
    """The Jinja template of a model directory, None if it has none.

    `chat_template.jinja` comes before the `chat_template` in `tokenizer_config.json`, as in
    Hugging Face's loader; of several named templates there, the one called "default" is taken.
    Raises `ConfigError` for files that can't be read or that hold something else.
    """
    config_path, jinja_path = directory / "tokenizer_config.json", directory / "chat_template.jinja"
    config = read_json_object(config_path) if config_path.exists() else {}
    special_tokens = _special_tokens(config)
    if jinja_path.exists():
        return ChatTemplate(read_text(jinja_path), special_tokens, str(jinja_path))
    source = config.get("chat_template")
    if isinstance(source, list):
        named = [entry for entry in source if isinstance(entry, dict)]
        source = {entry.get("name"): entry.get("template") for entry in named}.get("default")
    if source is None:
        return None
    if not isinstance(source, str):
        raise ConfigError(
            f"{config_path}: expected chat_template to be text, got {type(source).__name__}"
        )
    return ChatTemplate(source, special_tokens, str(config_path))


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token` and its like: plain text, or an object with the text as its content."""
    values = {
        name: value.get("content") if isinstance(value, dict) else value
        for name, value in config.items()
        if name.endswith("_token")
    }
    return {name: value for name, value in values.items() if isinstance(value, str)}
