"""Chat templates: real ones rendered exactly, hostile ones refused in bounded time and memory."""

from __future__ import annotations

import gc
import json
import os
import signal
from datetime import datetime

import pytest

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.runtime.chat_template import ChatTemplate, find_chat_template
from shadowattn_tvm.runtime.messages import Message
from shadowattn_tvm.runtime.template_process import TemplateProcess

CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = (Message("user", "Hi {{ 7 * 7 }} é🙂"), Message("assistant", "Yes?"))


def render(source: str, *messages: Message, **special_tokens: str) -> str:
    return ChatTemplate(source, special_tokens, "tokenizer_config.json").render(messages)


def test_a_conversation_and_the_opening_of_the_answer():
    assert render(CHATML, *TALK) == (
        "<|im_start|>user\nHi {{ 7 * 7 }} é🙂<|im_end|>\n"
        "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_special_tokens_are_variables():
    assert render("{{ bos_token }}|{{ eos_token }}", bos_token="<s>", eos_token="</s>") == (
        "<s>|</s>"
    )


def test_blocks_are_trimmed_as_hugging_face_does():
    assert render("  {% if true %}\n  a\n  {% endif %}\nb") == "  a\nb"


def test_helpers_of_hugging_face():
    source = "{{ {'a': '<é>'} | tojson }} {{ {'a': 1} | tojson(indent=1) }}"
    assert render(source) == '{"a": "<é>"} {\n "a": 1\n}'
    assert render("{{ strftime_now('%Y') }}") == str(datetime.now().year)
    assert (
        render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}")
        == "01"
    )
    assert render("{% generation %}x{% endgeneration %}y") == "xy"
    assert render("{{ tools is none }}") == "True"


def test_a_template_may_refuse_a_conversation():
    with pytest.raises(ConfigError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['sys'] }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
        "{{ messages.append(1) }}",
        "{% set _ = messages[0].update(role='system') %}{{ messages }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_pythons_internals_and_files_are_out_of_reach(source):
    with pytest.raises(ConfigError, match="chat template"):
        render(source, *TALK)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10000000000 }}",
        "{% set ns = namespace(x='a' * 64) %}{% for i in range(60) %}"
        "{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ 'a'.ljust(9999999999) }}",
        "{% for i in range(100000) %}{{ 'a' * 1000 }}{% endfor %}",
        "{% for i in range(10000000) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ '(' * 100000 }}{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    ],
)
def test_memory_output_and_depth_are_bounded(source):
    with pytest.raises(ConfigError, match="chat template"):
        render(source, *TALK)


@pytest.mark.slow
def test_time_is_bounded():
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(ConfigError, match="time or memory"):
        render(endless)


@pytest.mark.parametrize("source", ["{% if %}", "{{ messages[5].content.x }}", "{{ 1 / 0 }}"])
def test_broken_templates_name_the_file(source):
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json"):
        render(source, *TALK)


def write(directory, name, content):
    (directory / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_the_template_is_found_where_tokenizers_keep_it(tmp_path):
    assert find_chat_template(tmp_path) is None
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": None}
    write(tmp_path, "tokenizer_config.json", config)
    assert find_chat_template(tmp_path) is None
    write(tmp_path, "tokenizer_config.json", {**config, "chat_template": "one"})
    found = find_chat_template(tmp_path)
    assert found.source == "one"
    assert found.special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    named = [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]
    write(tmp_path, "tokenizer_config.json", {"chat_template": named})
    assert find_chat_template(tmp_path).source == "three"
    write(tmp_path, "chat_template.jinja", "four")
    assert find_chat_template(tmp_path).source == "four"


@pytest.mark.parametrize("content", ["[1]", "{", '{"chat_template": 7}'])
def test_malformed_tokenizer_files_are_refused(tmp_path, content):
    write(tmp_path, "tokenizer_config.json", content)
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json"):
        find_chat_template(tmp_path)


def test_a_template_that_failed_is_rendered_again():
    template = ChatTemplate(
        "{{ messages[0].content * (10000000000 if messages[0].content == 'big' else 1) }}",
        {},
        "tokenizer_config.json",
    )
    for content in ("a", "big", "b", "big", "c"):
        if content == "big":
            with pytest.raises(ConfigError):
                template.render([Message("user", content)])
        else:
            assert template.render([Message("user", content)]) == content


def test_a_process_that_was_killed_is_replaced():
    process = TemplateProcess()
    worker = process.start()
    assert process.start() is worker
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(ConfigError, match="stopped"):
        process.render("x", {})
    assert process.render("y", {}) == "y"
    assert process.start() is not worker


def test_an_interrupted_answer_is_not_taken_for_the_next():
    process = TemplateProcess()

    def interrupted(*_):
        raise KeyboardInterrupt

    slow = "{% for i in range(90000) %}{% for j in range(20) %}{% endfor %}{% endfor %}slow"
    previous = signal.signal(signal.SIGALRM, interrupted)
    try:
        process.render("ready", {})
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(KeyboardInterrupt):
            process.render(slow, {})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert process.render("next", {}) == "next"


def test_the_process_ends_with_its_owner():
    template = ChatTemplate("x", {}, "tokenizer_config.json")
    template.render(TALK)
    worker = template._process.start()
    del template
    gc.collect()
    assert worker.returncode is not None
