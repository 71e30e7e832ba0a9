"""MLC's conversation layouts as prompts, and the same prompt from both kinds of template."""

from __future__ import annotations

import pytest

from shadowattn_tvm.config.conversation import TEMPLATES, Conversation
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.runtime.chat_template import ChatTemplate
from shadowattn_tvm.runtime.conv_template import ConvTemplate
from shadowattn_tvm.runtime.messages import Message

TALK = (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Bye"))


def layout(name: str, **changes: object) -> Conversation:
    return Conversation(**{**TEMPLATES[name].layout, **changes})


def test_llama_2_joins_the_first_message_to_the_system_message():
    assert ConvTemplate(layout("llama-2", system_message="Be brief."), "<s>").render(TALK) == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] Bye [/INST]"
    )


def test_llama_3():
    assert ConvTemplate(layout("llama-3"), "<|begin_of_text|>").render(TALK[:1]) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "You are a helpful assistant.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_chatml_equals_the_models_own_jinja_template():
    jinja = ChatTemplate(
        "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
        "Face<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        {},
        "tokenizer_config.json",
    )
    ours = ConvTemplate(layout("smollm2"))
    for talk in (TALK, (Message("system", "Be brief."), *TALK)):
        assert ours.render(talk) == jinja.render(talk)


def test_placeholders_in_what_users_write_are_not_replaced():
    tricky = Message("user", "{system_message} {user_message} {function_string}")
    assert tricky.content in ConvTemplate(layout("chatml")).render([tricky])


def test_reasoning_is_dropped_from_the_history_where_the_layout_says_so():
    talk = (TALK[0], Message("assistant", "<think>hm</think>\n\nHello."), TALK[2])
    assert "hm" in ConvTemplate(layout("chatml")).render(talk)
    stripped = ConvTemplate(layout("chatml", strip_reasoning_in_history=True)).render(talk)
    assert "hm" not in stripped
    assert "assistant\nHello.<|im_end|>" in stripped


def test_a_role_the_layout_lacks_is_refused():
    with pytest.raises(ConfigError, match="assistant"):
        ConvTemplate(layout("chatml", roles={"user": "U"})).render(TALK)
