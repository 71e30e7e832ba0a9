"""Conversation templates: how roles and messages become one prompt, in MLC-LLM's protocol.

Tokens are named by their text and looked up in the model's own vocabulary, so a template fits every
model trained on that layout, whatever ids it gave them. Layouts follow the chat templates their
makers publish with the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ..errors import ConfigError

Strings = Annotated[tuple[str, ...], Field(strict=False)]
TokenIds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)]

SYSTEM_PLACEHOLDER = "{system_message}"
"""Replaced by the system message in `system_template`; the other roles have theirs below."""

_ROLE_TEMPLATES = {
    "user": "{user_message}",
    "assistant": "{assistant_message}",
    "tool": "{tool_message}",
}


class Conversation(BaseModel):
    """MLC's `Conversation` (mlc_llm/protocol/conversation_protocol.py), as stored.

    A prompt is: the system template with its message; then for each message
    `roles[role] + role_content_sep + content + sep`, where sep is `seps[0]` after the user and
    `seps[-1]` after the assistant; then `roles["assistant"] + role_empty_sep`, to be continued.
    `system_prefix_token_ids` go before the prompt's tokens.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    name: str | None = None
    system_template: str = SYSTEM_PLACEHOLDER
    system_message: str = ""
    system_prefix_token_ids: TokenIds | None = None
    add_role_after_system_message: bool = True
    roles: dict[str, str]
    role_templates: dict[str, str] = Field(default_factory=lambda: dict(_ROLE_TEMPLATES))
    messages: Annotated[tuple[Any, ...], Field(strict=False)] = ()
    seps: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=2)]
    role_content_sep: str = ""
    role_empty_sep: str = ""
    stop_str: Strings = ()
    stop_token_ids: TokenIds = ()
    strip_reasoning_in_history: bool = False
    function_string: str = ""
    use_function_calling: bool = False


@dataclass(frozen=True)
class Template:
    """A layout, with its tokens by name.

    Attributes
    ----------
    prefix_tokens : put before every prompt.
    stop_tokens : end an answer; those the vocabulary lacks are passed over, but one must be there.
    layout : the remaining fields of `Conversation`.
    """

    layout: Mapping[str, Any]
    stop_tokens: tuple[str, ...]
    prefix_tokens: tuple[str, ...] = field(default=())


def _chatml(system_message: str) -> Template:
    return Template(
        layout={
            "system_template": f"<|im_start|>system\n{SYSTEM_PLACEHOLDER}<|im_end|>\n",
            "system_message": system_message,
            "roles": {"user": "<|im_start|>user", "assistant": "<|im_start|>assistant"},
            "seps": ("<|im_end|>\n",),
            "role_content_sep": "\n",
            "role_empty_sep": "\n",
        },
        stop_tokens=("<|im_end|>", "<|endoftext|>"),
    )


def _llama3(stop_tokens: tuple[str, ...], roles: Mapping[str, str]) -> Template:
    return Template(
        layout={
            "system_template": "<|start_header_id|>system<|end_header_id|>\n\n"
            f"{SYSTEM_PLACEHOLDER}<|eot_id|>",
            "system_message": "You are a helpful assistant.",
            "roles": {
                role: f"<|start_header_id|>{name}<|end_header_id|>" for role, name in roles.items()
            },
            "seps": ("<|eot_id|>",),
            "role_content_sep": "\n\n",
            "role_empty_sep": "\n\n",
        },
        stop_tokens=stop_tokens,
        prefix_tokens=("<|begin_of_text|>",),
    )


TEMPLATES: Mapping[str, Template] = {
    "smollm2": _chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "chatml": _chatml("You are a helpful assistant."),
    "qwen2.5": _chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "llama-3": _llama3(
        ("<|end_of_text|>", "<|eot_id|>"), {"user": "user", "assistant": "assistant"}
    ),
    "llama-3_1": _llama3(
        ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        {"user": "user", "assistant": "assistant", "tool": "ipython"},
    ),
    "llama-2": Template(
        layout={
            "system_template": f"[INST] <<SYS>>\n{SYSTEM_PLACEHOLDER}\n<</SYS>>\n\n",
            "system_message": "You are a helpful, respectful and honest assistant.",
            "add_role_after_system_message": False,
            "roles": {"user": "<s>[INST]", "assistant": "[/INST]"},
            "seps": (" ", " </s>"),
            "role_content_sep": " ",
            "role_empty_sep": "",
        },
        stop_tokens=("</s>",),
        prefix_tokens=("<s>",),
    ),
    "tinyllama_v1_0": Template(
        layout={
            "system_template": f"<|system|>\n{SYSTEM_PLACEHOLDER}</s>\n",
            "system_message": "You are a friendly chatbot.",
            "roles": {"user": "<|user|>", "assistant": "<|assistant|>"},
            "seps": ("</s>\n",),
            "role_content_sep": "\n",
            "role_empty_sep": "\n",
        },
        stop_tokens=("</s>",),
    ),
    "LM": Template(  # a base model: the prompt is continued as it is
        layout={"roles": {"user": "", "assistant": ""}, "seps": ("",)},
        stop_tokens=("<|end_of_text|>", "<|endoftext|>", "</s>"),
    ),
}
"""By MLC's names where MLC has the layout."""


_MARKS = (
    ("smollm2", ("<|im_start|>", "named SmolLM")),
    ("qwen2.5", ("<|im_start|>", "You are Qwen, created by Alibaba Cloud.")),
    ("chatml", ("<|im_start|>",)),
    ("llama-3_1", ("<|start_header_id|>", "ipython")),
    ("llama-3", ("<|start_header_id|>",)),
    ("llama-2", ("[INST]", "<<SYS>>")),
    ("tinyllama_v1_0", ("<|user|>", "<|assistant|>", "eos_token")),
)
"""Template names and the strings a model's own chat template must hold for it; first match wins."""


def recognize_template(chat_template: str | None) -> str:
    """The name of the layout a model's own chat template (Jinja) describes; "LM" for a model that
    has none. Raises `ConfigError` for a layout we don't know."""
    if chat_template is None:
        return "LM"
    for name, marks in _MARKS:
        if all(mark in chat_template for mark in marks):
            return name
    raise ConfigError(
        "the model's chat template is of no layout known here; choose one with --conv-template: "
        f"{', '.join(TEMPLATES)}"
    )


def conversation(name: str, token_ids: Mapping[str, int]) -> Conversation:
    """The template `name` for a model whose special tokens have these ids. Raises `ConfigError` if
    there is no such template, or the vocabulary lacks its tokens."""
    template = TEMPLATES.get(name)
    if template is None:
        raise ConfigError(
            f"unknown conversation template {name!r}; expected one of {', '.join(TEMPLATES)}"
        )
    stops = tuple(token_ids[t] for t in template.stop_tokens if t in token_ids)
    missing = [t for t in template.prefix_tokens if t not in token_ids]
    if missing or not stops:
        wanted = ", ".join(missing) or " or ".join(template.stop_tokens)
        raise ConfigError(
            f"conversation template {name!r} needs the token {wanted}, which this model's "
            f"vocabulary lacks; choose another of {', '.join(TEMPLATES)}"
        )
    prefix = tuple(token_ids[t] for t in template.prefix_tokens)
    return Conversation(
        name=name,
        system_prefix_token_ids=prefix or None,
        stop_token_ids=stops,
        **template.layout,
    )
