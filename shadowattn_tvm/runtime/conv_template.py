"""Renders MLC's conversation template, for models that bring no Jinja template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config.conversation import SYSTEM_PLACEHOLDER, Conversation
from ..errors import ConfigError
from .messages import Message

_FUNCTION_PLACEHOLDER = "{function_string}"
_END_OF_REASONING = "</think>"


@dataclass(frozen=True)
class ConvTemplate:
    """A `PromptTemplate` over a conversation layout.

    Attributes
    ----------
    layout : what to put where; see `Conversation`.
    prefix : text of the layout's `system_prefix_token_ids`, put before everything else.
    """

    layout: Conversation
    prefix: str = ""

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt after which the assistant answers. A system message of the conversation
        replaces the layout's own.

        Raises `ConfigError` for a role the layout has no introduction for.
        """
        layout = self.layout
        system = [m.content for m in messages if m.role == "system"] or [layout.system_message]
        opening = layout.system_template.replace(_FUNCTION_PLACEHOLDER, "")
        opening = opening.replace(SYSTEM_PLACEHOLDER, "\n".join(system))
        role_follows = opening == "" or layout.add_role_after_system_message
        turns = [m for m in messages if m.role != "system"]
        prompt = self.prefix + opening
        for index, message in enumerate(turns):
            if index > 0 or role_follows:
                prompt += self._introduction(message.role) + layout.role_content_sep
            prompt += self._content(message, is_history=index < len(turns) - 1)
            prompt += layout.seps[-1] if message.role == "assistant" else layout.seps[0]
        return prompt + self._introduction("assistant") + layout.role_empty_sep

    def _introduction(self, role: str) -> str:
        if role not in self.layout.roles:
            raise ConfigError(
                f"expected the conv_template to have the role {role!r}, got "
                f"{sorted(self.layout.roles)}"
            )
        return self.layout.roles[role]

    def _content(self, message: Message, *, is_history: bool) -> str:
        content = message.content
        if self.layout.strip_reasoning_in_history and message.role == "assistant" and is_history:
            content = content.rpartition(_END_OF_REASONING)[2].lstrip("\n")
        placeholder = f"{{{message.role}_message}}"
        template = self.layout.role_templates.get(message.role, placeholder)
        return template.replace(_FUNCTION_PLACEHOLDER, "").replace(placeholder, content)
