"""The tokenizer wrapper, over a tiny byte-level tokenizer made here."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.runtime.detokenize import StreamingDetokenizer
from shadowattn_tvm.runtime.tokenizer import ModelTokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>"), AddedToken("<|im_end|>")])
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def tokenizer(directory):
    return ModelTokenizer.from_directory(directory)


def test_special_tokens_in_the_prompt_are_recognized_and_left_out_of_text(tokenizer):
    ids = tokenizer.encode("<|im_start|>é<|im_end|>")
    assert (ids[0], ids[-1], len(ids)) == (256, 257, 4)
    assert tokenizer.decode(ids) == "é"
    assert tokenizer.vocab_size == 258


def test_tokens_by_name(tokenizer):
    assert tokenizer.token_text(256) == "<|im_start|>"
    assert tokenizer.token_id("<|im_end|>") == 257
    assert tokenizer.token_id("<|nobody|>") is None
    with pytest.raises(ConfigError, match="258"):
        tokenizer.token_text(999)


def test_text_that_is_not_unicode_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="UTF-8"):
        tokenizer.encode("a\udcff")


def test_streaming_shows_whole_characters(tokenizer):
    text = "naïve 🙂 — 你好"
    detokenizer = StreamingDetokenizer(tokenizer.decode)
    pieces = [detokenizer.push(i) for i in tokenizer.encode(text)]
    assert "".join(pieces) + detokenizer.flush() == text
    assert {p for p in pieces if p} == set(text)


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_missing_or_malformed_files_are_refused_by_name(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        ModelTokenizer.from_directory(tmp_path)
