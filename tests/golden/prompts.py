"""Prompts for golden comparisons: chat, code, a list and a long document, and a conversation.

Chat prompts are laid out as SmolLM2's own template lays them out, spelled here in full so that they
don't depend on the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shadowattn_tvm.corpora import read_documents

_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

_LIST = """The planets of the solar system, from the innermost outwards:
1. Mercury: 88 days a year, no moons
2. Venus: 225 days a year, no moons
3. Earth:"""

_CODE = '''def fibonacci(n: int) -> int:
    """Return the n-th Fibonacci number, counting from zero."""
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def factorial(n: int) -> int:
    """Return the product of the integers from 1 to n."""
'''

_LONG_DOCUMENT_CHARACTERS = 12_000
"""Some 2,700 tokens of SmolLM2's: sparse attention has a past of several chunks."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as the tokenizer gets it: rendered, special tokens spelled out."""

    name: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """A conversation in which the model's own answers, cut to a number of tokens, become history.

    Attributes
    ----------
    opening : what comes before the first question.
    questions : the user's turns.
    """

    opening: str
    questions: tuple[str, ...]

    def question(self, index: int) -> str:
        """What is appended to the tokens so far to ask question `index` and prompt for an answer:
        the end of the answer before it (if any) and the turn itself."""
        before = self.opening if index == 0 else "<|im_end|>\n"
        return before + _user_turn(self.questions[index])


def prompts() -> tuple[Prompt, ...]:
    """Four kinds of text, one of them longer than 1,500 tokens."""
    return (
        Prompt("question", _opening() + _user_turn("Why is the sky blue?")),
        Prompt("code", _CODE),
        Prompt("list", _LIST),
        Prompt("long document", _documentation()[:_LONG_DOCUMENT_CHARACTERS]),
    )


def conversation() -> Conversation:
    """Three turns, the first of which is long enough to be worth remembering sparsely."""
    excerpt = _documentation()[-6_000:]
    return Conversation(
        _opening(),
        (
            f"Here is a part of a manual:\n{excerpt}\nSummarize it in one sentence.",
            "Name one thing it warns about.",
            "Now write a haiku about it.",
        ),
    )


def conversation_ids(
    dialogue: Conversation,
    encode: Callable[[str], list[int]],
    answer: Callable[[Sequence[int]], Sequence[int]],
) -> list[list[int]]:
    """Play a conversation: per turn, all token ids up to and including its prompt for an answer.
    `answer` maps those to the answer's tokens."""
    history: list[int] = []
    turns = []
    for index in range(len(dialogue.questions)):
        history = [*history, *encode(dialogue.question(index))]
        turns.append(history)
        history = [*history, *answer(history)]
    return turns


def _documentation() -> str:
    return "\n\n".join(document.text for document in read_documents(["pydoc"]))


def _opening() -> str:
    return f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n"


def _user_turn(message: str) -> str:
    return f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
