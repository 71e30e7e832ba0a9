"""Conversation templates against the chat templates the models' makers publish (Jinja): the same
prompt, character by character."""

from __future__ import annotations

import jinja2
import pytest

from shadowattn_tvm.config import TEMPLATES
from shadowattn_tvm.config.conversation import Conversation, conversation, recognize_template
from shadowattn_tvm.errors import ConfigError

# Excerpts of what the makers ship in tokenizer_config.json, tools and dates left out.
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% endif %}"
    "{% for message in loop_messages %}{% if loop.index0 == 0 %}{% set content = '<<SYS>>\n' + "
    "system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}"
    "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)
TINYLLAMA = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
    "{% endfor %}"
)

TOKENS = {
    "<|im_end|>": 2,
    "<|endoftext|>": 0,
    "<|begin_of_text|>": 128000,
    "<|end_of_text|>": 128001,
    "<|eom_id|>": 128008,
    "<|eot_id|>": 128009,
    "<s>": 1,
    "</s>": 2,
}
BEGIN = {"llama-3": "<|begin_of_text|>", "llama-3_1": "<|begin_of_text|>", "llama-2": "<s>"}
DIALOGUE = [("user", "Hi there."), ("assistant", "Hello!"), ("user", "What is 2 + 2?")]


def render(template: Conversation, dialogue: list[tuple[str, str]]) -> str:
    """A prompt as MLC-LLM's conversation protocol defines it, without the prefix tokens."""
    prompt = template.system_template.replace("{system_message}", template.system_message)
    for i, (role, content) in enumerate(dialogue):
        bare = not template.add_role_after_system_message and i == 0 and prompt != ""
        prefix = "" if bare else template.roles[role] + template.role_content_sep
        prompt += prefix + content + template.seps[-1 if role == "assistant" else 0]
    return prompt + template.roles["assistant"] + template.role_empty_sep


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("smollm2", CHATML),
        ("chatml", CHATML),
        ("llama-3", LLAMA3),
        ("llama-3_1", LLAMA3),
        ("llama-2", LLAMA2),
        ("tinyllama_v1_0", TINYLLAMA),
    ],
)
@pytest.mark.parametrize("turns", [1, 3])
def test_prompts_are_the_makers(name: str, published: str, turns: int) -> None:
    template = conversation(name, TOKENS)
    messages = [{"role": "system", "content": template.system_message}]
    messages += [{"role": role, "content": text} for role, text in DIALOGUE[:turns]]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers does
    begin = BEGIN.get(name, "")
    expected = environment.from_string(published).render(
        messages=messages, add_generation_prompt=True, bos_token=begin, eos_token="</s>"
    )
    assert begin + render(template, DIALOGUE[:turns]) == expected
    prefix = template.system_prefix_token_ids or ()
    assert prefix == tuple(TOKENS[token] for token in [begin] if token)


def test_smollm2s_own_system_message() -> None:
    expected = (
        jinja2.Environment()
        .from_string(CHATML)
        .render(messages=[{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    )
    assert render(conversation("smollm2", TOKENS), [("user", "Hi")]) == expected


@pytest.mark.parametrize(
    ("published", "name"),
    [
        (CHATML, "smollm2"),
        (CHATML.replace("named SmolLM", ""), "chatml"),
        (LLAMA3, "llama-3"),
        (LLAMA3 + "{% if tools %}ipython{% endif %}", "llama-3_1"),
        (LLAMA2, "llama-2"),
        (TINYLLAMA, "tinyllama_v1_0"),
        (None, "LM"),
    ],
)
def test_recognition(published: str | None, name: str) -> None:
    assert recognize_template(published) == name


def test_an_unknown_layout_asks_for_a_choice() -> None:
    with pytest.raises(ConfigError, match="choose one with --conv-template: smollm2, chatml"):
        recognize_template("### Instruction:\n{{ messages[0]['content'] }}\n### Response:\n")


def test_stop_tokens_are_looked_up() -> None:
    assert conversation("llama-3_1", TOKENS).stop_token_ids == (128001, 128008, 128009)
    assert conversation("chatml", {"<|im_end|>": 7}).stop_token_ids == (7,)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_vocabulary_without_the_tokens_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="which this model's vocabulary lacks"):
        conversation(name, {"hello": 3})


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        ConfigError, match=r"'alpaca'; expected one of smollm2, chatml, qwen2\.5, llama-3"
    ):
        conversation("alpaca", TOKENS)
