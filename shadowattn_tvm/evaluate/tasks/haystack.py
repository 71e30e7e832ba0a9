"""Prompts of a fixed length with facts hidden in running text, as `passkey` and `needle` use them.

Contents
- `HaystackPrompt`: one prompt with its answer.
- `hide`: one puzzle in one text.
- `haystack_prompts`: prompts spread over lengths, depths and documents.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ...corpora import Document, TextEncoder
from ...errors import ConfigError
from .puzzle import Puzzle

DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Where in the text the fact is: 0 = at its start, 1 = at its end."""

SHORTEST_TOKENS = 1024
"""Of the lengths tried: several chunks, so that there is a past to leave out."""

PuzzleMaker = Callable[[random.Random], Puzzle]


@dataclass(frozen=True)
class HaystackPrompt:
    """One prompt, its answer included.

    Attributes
    ----------
    document, document_sha256 : the text that the facts are hidden in.
    depth : where the fact that is asked for is hidden.
    token_ids : `[tokens]` int64.
    answer_start : index of the answer's first token; the answer is the rest.
    """

    document: str
    document_sha256: str
    depth: float
    token_ids: NDArray[np.int64]
    answer_start: int

    @property
    def length_tokens(self) -> int:
        return len(self.token_ids)


def lengths_up_to(context_tokens: int) -> tuple[int, ...]:
    """Doublings of `SHORTEST_TOKENS` that fit, in tokens.

    Raises `ConfigError` where none does.
    """
    lengths = []
    length = SHORTEST_TOKENS
    while length <= context_tokens:
        lengths.append(length)
        length *= 2
    if not lengths:
        raise ConfigError(
            f"expected a context of at least {SHORTEST_TOKENS} tokens to hide facts in, got "
            f"{context_tokens}; give a longer --context or leave out passkey and needle"
        )
    return tuple(lengths)


def haystack_prompts(
    documents: Sequence[Document],
    tokenizer: TextEncoder,
    make_puzzle: PuzzleMaker,
    *,
    lengths_tokens: Sequence[int],
    num_prompts: int,
    seed: int,
    depths: Sequence[float] = DEPTHS,
    prefix_ids: Sequence[int] = (),
    min_documents: int = 1,
) -> tuple[HaystackPrompt, ...]:
    """At least `num_prompts` prompts: as many in each cell of `lengths_tokens` x `depths`.

    Documents take turns; every prompt has its own puzzle and its own stretch of text. The same
    arguments give the same prompts. Raises `ConfigError` if fewer than `min_documents` documents
    are long enough.
    """
    longest = max(lengths_tokens)
    texts = [(document, tokenizer.encode(document.text)) for document in documents]
    texts = [(document, ids) for document, ids in texts if len(ids) >= longest]
    if len(texts) < max(min_documents, 1):
        raise ConfigError(
            f"expected at least {max(min_documents, 1)} documents of {longest} tokens or more to "
            f"hide facts in, got {len(texts)} of {len(documents)}; add longer texts or give a "
            "shorter --context"
        )
    cells = tuple(product(lengths_tokens, depths))
    rng = random.Random(seed)
    prompts = []
    for number in range(-(-num_prompts // len(cells)) * len(cells)):
        length, depth = cells[number % len(cells)]
        # Not `number` alone: its turns and those of the cells would run in step.
        document, ids = texts[(number + number // len(cells)) % len(texts)]
        start = rng.randrange(len(ids) - length + 1)
        prompts.append(
            hide(
                make_puzzle(rng),
                document,
                ids[start : start + length],
                tokenizer,
                rng,
                depth=depth,
                prefix_ids=prefix_ids,
            )
        )
    return tuple(prompts)


def hide(
    puzzle: Puzzle,
    document: Document,
    text_ids: Sequence[int],
    tokenizer: TextEncoder,
    rng: random.Random,
    *,
    depth: float,
    prefix_ids: Sequence[int] = (),
) -> HaystackPrompt:
    """A prompt of `len(text_ids)` tokens: prefix, text with the facts, question, answer.

    As much of `text_ids` is used as the rest leaves room for. The fact that is asked for begins
    after the part `depth` of it, the others at random places, one in each equal part.
    Raises `ConfigError` if the facts alone take more than half.
    """
    facts = [tokenizer.encode(f"\n\n{fact}\n\n") for fact in puzzle.facts]
    question = tokenizer.encode(f"\n\n{puzzle.question}")
    answer = tokenizer.encode(f" {puzzle.answer}")
    added = len(prefix_ids) + sum(map(len, facts)) + len(question) + len(answer)
    room = len(text_ids) - added
    if room < added:
        raise ConfigError(
            f"expected prompts long enough for {added} tokens of facts and as many of text, got "
            f"{len(text_ids)} tokens; give a longer --context"
        )
    num_others = len(facts) - 1
    places = [depth] + [(part + rng.random()) / num_others for part in range(num_others)]
    token_ids = list(prefix_ids)
    used = 0
    for place, fact in sorted(zip(places, facts, strict=True)):
        until = int(place * room)
        token_ids += [*text_ids[used:until], *fact]
        used = until
    token_ids += [*text_ids[used:room], *question]
    return HaystackPrompt(
        document=document.name,
        document_sha256=document.sha256,
        depth=depth,
        token_ids=np.asarray([*token_ids, *answer], np.int64),
        answer_start=len(token_ids),
    )
