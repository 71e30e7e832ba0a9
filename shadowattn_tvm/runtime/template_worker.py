"""Renders chat templates in a process of its own: a request a line in, an answer a line out.

A chat template is a program that came with somebody's weights. Jinja's sandbox keeps it from
Python's internals but not from running forever or doubling a string forty times; only the
operating system can bound that, so the work is done here, where memory and time are limited.

Run as a script, with nothing imported but Jinja, so that starting it is cheap. A request is
{"template": str, "variables": {...}}, its answer {"text": str} or {"error": str}.
"""

from __future__ import annotations

import json
import math
import sys
import time
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_MEMORY_BYTES = 512 << 20  # interpreter, Jinja, and far more than any conversation
MAX_CPU_S = 5  # for each request; real templates take milliseconds
MAX_OUTPUT_CHARS = 16 << 20  # a million tokens of 16 characters
MAX_ERROR_CHARS = 500


class GenerationTag(Extension):
    """`{% generation %}` marks the assistant's part for training; for a prompt it is no more than
    its content."""

    tags = {"generation"}  # noqa: RUF012  (Jinja declares it as an instance's)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(template: str, variables: dict[str, Any]) -> str:
    """The rendered text, with the settings and helpers templates on Hugging Face rely on."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    pieces: list[str] = []
    num_chars = 0
    for piece in environment.from_string(template).generate(**variables):
        num_chars += len(piece)
        if num_chars > MAX_OUTPUT_CHARS:
            raise TemplateError(f"expected at most {MAX_OUTPUT_CHARS} characters of output")
        pieces.append(piece)
    return "".join(pieces)


def _to_json(value: object, ensure_ascii: bool = False, **layout: Any) -> str:
    """Jinja's own filter escapes for HTML, which would change the prompt."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **layout)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


def limit_resources() -> None:
    """Bound this process's memory, and the CPU time from now on, where the system can."""
    try:
        import resource
    except ImportError:  # not a POSIX system: the caller's time limit remains
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    _, hard_limit = resource.getrlimit(resource.RLIMIT_CPU)
    until_s = math.ceil(time.process_time()) + MAX_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (until_s, hard_limit))


def answer(request: dict[str, Any]) -> dict[str, str]:
    """The answer to one request: whatever the template does wrong becomes its error."""
    try:
        return {"text": render(request["template"], request["variables"])}
    except Exception as error:
        # A template can provoke any exception; none of them is this program's.
        return {"error": f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS]}


def main() -> None:
    for line in sys.stdin:
        limit_resources()
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
