"""The chat: a prompt line, MLC's commands, streamed answers; and the same for one prompt.

An answer that is interrupted (Ctrl-C) stays in the conversation as far as it was shown, and the
model sees it so in the next turn; a turn interrupted before anything was shown, or that failed,
is dropped. Either way the chat goes on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TextIO

from ..errors import ContextOverflowError, ShadowAttnError
from .assistant import Assistant
from .console import LineReader, read_message, standard_reader
from .generate import TokenEvent
from .messages import Message
from .settings import Settings, parse_settings
from .stats import ChatRecord, GenerationRecord, make_record, metrics, summary

PROMPT = ">>> "
CONTINUATION_PROMPT = "... "
HELP = """You can use the following special commands:
  /help               print the special commands
  /exit               quit the chat (so does the end of the input)
  /stats              print speed and kept fraction of the last answer
  /metrics            print totals of this chat
  /reset              start a new conversation
  /set [key=value;..] change settings, or print them. For example,
                      `/set temperature=0.5;top_p=0.8;seed=23;max_tokens=100;stop=str1,str2`
Ctrl-C ends an answer. A line ending with a backslash (or escape+enter) goes on in the next.
"""

_COMMAND = re.compile(r"/[a-z]+")
"""So that a question about /usr/bin is a question."""


class Chat:
    """One conversation with an assistant; see `run_chat`."""

    def __init__(
        self, assistant: Assistant, settings: Settings, system: str | None, out: TextIO
    ) -> None:
        self._assistant = assistant
        self._settings = settings
        self._opening = (Message("system", system),) if system is not None else ()
        self._messages: tuple[Message, ...] = self._opening
        self._records: list[GenerationRecord] = []
        self._out = out
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/stats": self._stats,
            "/metrics": self._metrics,
            "/reset": self._reset,
            "/set": self._set,
        }

    @property
    def record(self) -> ChatRecord:
        """The answers so far."""
        return ChatRecord(turns=tuple(self._records))

    def loop(self, read_line: LineReader) -> None:
        """Read and answer messages until `/exit` or the end of the input."""
        self._help("")
        while True:
            try:
                message = read_message(read_line, PROMPT, CONTINUATION_PROMPT).strip()
                if message == "/exit":
                    return
                self.handle(message)
            except EOFError:
                self._say("")
                return
            except KeyboardInterrupt:
                self._say("\n(/exit or the end of the input leaves the chat)")
            except UnicodeDecodeError as error:
                self._say(f"error: expected a line of UTF-8 text, got {error.reason}; not sent")
            except ContextOverflowError as error:
                self._say(f"error: {error}\n(/reset starts a new conversation)")
            except ShadowAttnError as error:
                self._say(f"error: {error}")

    def handle(self, message: str) -> None:
        """Run a command or answer a message. Raises `ShadowAttnError`, the chat as before."""
        command, _, argument = message.partition(" ")
        if command in self._commands:
            self._commands[command](argument)
        elif _COMMAND.fullmatch(command):
            self._say(f"unknown command {command}; /help lists them")
        elif message:
            self._answer(message)

    def _answer(self, text: str) -> None:
        messages = (*self._messages, Message("user", text))
        prompt_ids = self._assistant.prompt_ids(messages)
        events: list[TokenEvent] = []
        try:
            _stream(self._assistant, prompt_ids, self._settings, self._out, events)
            if events[-1].finish_reason == "length":
                at_max = len(events) == self._settings.max_tokens
                limit = "max_tokens" if at_max else "the context window"
                self._out.write(f" [the answer reached {limit}]")
        except KeyboardInterrupt:
            self._out.write(" [interrupted]")
        finally:
            self._say("")
        if not events:
            return
        record = make_record(prompt_ids, events)
        self._records.append(record)
        if record.text or record.finish_reason != "interrupted":
            self._messages = (*messages, Message("assistant", record.text))

    def _help(self, _: str) -> None:
        self._out.write(HELP)

    def _stats(self, _: str) -> None:
        self._say(summary(self._records[-1]) if self._records else "no answer yet")

    def _metrics(self, _: str) -> None:
        model = self._assistant.model
        self._say(metrics(self._records, model.position, model.context_window_tokens))

    def _reset(self, _: str) -> None:
        self._messages = self._opening
        self._say("a new conversation")

    def _set(self, argument: str) -> None:
        self._settings = self._settings.with_values(parse_settings(argument))
        self._say(self._settings.describe())

    def _say(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()


def run_chat(
    assistant: Assistant,
    settings: Settings | None = None,
    *,
    system: str | None = None,
    read_line: LineReader | None = None,
    out: TextIO | None = None,
) -> ChatRecord:
    """Chat until `/exit` or the end of the input; the record of all answers.

    Settings default to the assistant's, input and output to this process's. No mistake of the
    user ends the chat.
    """
    chat = Chat(
        assistant, settings or assistant.defaults, system, sys.stdout if out is None else out
    )
    chat.loop(read_line or standard_reader())
    return chat.record


def run_prompt(
    assistant: Assistant,
    prompt: str,
    settings: Settings | None = None,
    *,
    system: str | None = None,
    out: TextIO | None = None,
) -> GenerationRecord:
    """Answer one prompt, streaming the text to `out`; the record of the answer.

    Raises `ShadowAttnError` for what can't be answered; `KeyboardInterrupt` passes through.
    """
    messages = (Message("system", system),) if system is not None else ()
    prompt_ids = assistant.prompt_ids((*messages, Message("user", prompt)))
    events: list[TokenEvent] = []
    target = sys.stdout if out is None else out
    _stream(assistant, prompt_ids, settings or assistant.defaults, target, events)
    target.write("\n")
    target.flush()
    return make_record(prompt_ids, events)


def _stream(
    assistant: Assistant,
    prompt_ids: list[int],
    settings: Settings,
    out: TextIO,
    events: list[TokenEvent],
) -> None:
    """Write an answer as it comes and collect its events: what was shown is in them, also when
    an exception ends it."""
    for event in assistant.answer(prompt_ids, settings):
        events.append(event)
        out.write(event.text)
        out.flush()
