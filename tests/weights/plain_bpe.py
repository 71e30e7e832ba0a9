"""Byte-level BPE written plainly from its definitions, for comparison."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

import regex

GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def cut_gpt2(text: str) -> list[str]:
    words: list[str] = regex.findall(GPT2_WORDS, text)
    return words


def cut_smollm(text: str) -> list[str]:
    """Every digit by itself, what is between them as GPT-2."""
    return [word for part in regex.split(r"(\p{N})", text) for word in cut_gpt2(part)]


def cut_llama3(text: str) -> list[str]:
    words: list[str] = regex.findall(LLAMA3_WORDS, text)
    return words


def cut_qwen2(text: str) -> list[str]:
    """As Llama 3, but digit by digit, and characters composed."""
    words = LLAMA3_WORDS.replace("{1,3}", "")
    found: list[str] = regex.findall(words, unicodedata.normalize("NFC", text))
    return found


CUTS: Mapping[str, Callable[[str], list[str]]] = {
    "gpt-2": cut_gpt2,
    "smollm": cut_smollm,
    "llama-bpe": cut_llama3,
    "qwen2": cut_qwen2,
}


def byte_letters() -> dict[int, str]:
    """GPT-2's letter for each byte: printable Latin-1 stands for itself, the others follow 255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in plain)
    letters = {byte: chr(byte) for byte in plain}
    return letters | {byte: chr(256 + i) for i, byte in enumerate(others)}


@dataclass(frozen=True)
class PlainBpe:
    """A byte-level BPE tokenizer.

    Attributes
    ----------
    cut : the name of how text becomes words.
    ranks : merges by rank.
    specials : tokens found in the text before it is cut.
    whole_words : words taken as they are, whatever the merges (Llama 3).
    """

    cut: str
    ranks: Mapping[tuple[str, str], int]
    specials: Collection[str]
    whole_words: Collection[str] = ()

    def tokens(self, text: str) -> list[str]:
        pattern = "|".join(regex.escape(special) for special in self.specials)
        found: list[str] = []
        for part in regex.split(f"({pattern})", text):
            found += [part] if part in self.specials else self._words(part)
        return found

    def _words(self, text: str) -> list[str]:
        letters = byte_letters()
        found: list[str] = []
        for word in CUTS[self.cut](text):
            symbols = [letters[byte] for byte in word.encode()]
            joined = "".join(symbols)
            found += [joined] if joined in self.whole_words else self._merged(symbols)
        return found

    def _merged(self, symbols: list[str]) -> list[str]:
        """Merge the neighbours of the lowest rank, leftmost first, until none is left."""
        while True:
            ranked = [
                (self.ranks[pair], i)
                for i, pair in enumerate(pairwise(symbols))
                if pair in self.ranks
            ]
            if not ranked:
                return symbols
            _, at = min(ranked)
            symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]
