"""The model's tokenizer, from its `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ..config.documents import read_text
from ..errors import ConfigError


class ModelTokenizer:
    """A `TextTokenizer` (see `protocol`) over a Hugging Face tokenizer file."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def from_directory(cls, directory: Path) -> ModelTokenizer:
        """Read `tokenizer.json`. Raises `ConfigError` if it is missing or malformed."""
        path = directory / "tokenizer.json"
        text = read_text(path)
        try:
            return cls(Tokenizer.from_str(text))
        except Exception as error:  # the library raises bare Exception for malformed files
            raise ConfigError(f"{path}: expected a Hugging Face tokenizer, got {error}") from None

    @property
    def vocab_size(self) -> int:
        """Tokens it knows, added ones included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Token ids of a rendered prompt: special tokens in the text become their ids, none are
        added. Raises `ConfigError` for text that is not Unicode (lone surrogates)."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"expected Unicode text, got bytes that are not UTF-8 (character {error.start})"
            ) from None
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the tokens; special tokens are left out, broken UTF-8 shows as U+FFFD."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def token_text(self, token_id: int) -> str:
        """How the vocabulary spells one token. Raises `ConfigError` if it has none of that id."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            raise ConfigError(
                f"expected a token id below {self.vocab_size}, got {token_id}: the tokenizer and "
                "mlc-chat-config.json don't belong together"
            )
        return str(token)

    def token_id(self, token: str) -> int | None:
        """The id of a token spelled exactly so, None if there is none."""
        found = self._tokenizer.token_to_id(token)
        return None if found is None else int(found)
