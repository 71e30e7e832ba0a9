"""A model one can talk to: from messages to a stream of timed tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .generate import TokenEvent, generate
from .messages import Message
from .protocol import PromptTemplate, TextTokenizer, TokenModel
from .settings import Settings
from .stop import StopConditions


@dataclass(frozen=True)
class Assistant:
    """Answers conversations.

    Attributes
    ----------
    model : keeps the tokens of the conversation so far in its cache.
    tokenizer, template : from messages to tokens.
    stop : the model's own end-of-answer tokens and strings.
    defaults : settings the model's authors recommend.
    """

    model: TokenModel
    tokenizer: TextTokenizer
    template: PromptTemplate
    stop: StopConditions
    defaults: Settings

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The whole conversation as tokens. Raises `ConfigError`."""
        return self.tokenizer.encode(self.template.render(messages))

    def answer(self, prompt_ids: Sequence[int], settings: Settings) -> Iterator[TokenEvent]:
        """Stream the answer; see `generate`. Only what the cache does not hold yet is prefilled,
        so a conversation costs its new turn and gives what reading it whole would."""
        return generate(
            self.model,
            self.tokenizer,
            prompt_ids,
            settings.sampling,
            settings.stop_conditions(self.stop),
        )
