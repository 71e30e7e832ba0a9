from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from shadowattn_tvm.corpora import Document, read_documents
from shadowattn_tvm.corpora.wikitext import split_articles
from shadowattn_tvm.errors import ConfigError


def test_a_document_is_named_and_hashed_by_content(tmp_path: Path) -> None:
    file = tmp_path / "essays.txt"
    file.write_bytes("Grüße\n".encode())
    (document,) = read_documents([str(file)])
    assert document == Document("essays.txt", "Grüße\n")
    assert document.sha256 == hashlib.sha256("Grüße\n".encode()).hexdigest()


def test_pydoc_is_many_texts_none_of_which_repeats_another() -> None:
    documents = read_documents(["pydoc"])
    names = [document.name for document in documents]
    assert len(documents) >= 10
    assert names == sorted(names)
    assert all(name.startswith("pydoc/") and "CPython" in name for name in names)
    assert not any(a is not b and a.text in b.text for a in documents for b in documents)
    # A chapter of a longer topic is left out, the longer one stays.
    assert any(name.startswith("pydoc/specialnames") for name in names)
    assert not any(name.startswith("pydoc/customization") for name in names)


def test_a_directory_is_read_in_order_and_gzip_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_text("one")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"two"))
    (tmp_path / ".hidden").write_text("three")
    documents = read_documents([str(tmp_path)])
    assert [(d.name, d.text) for d in documents] == [("a.txt.gz", "two"), ("b/one.txt", "one")]


def test_sources_add_up_and_the_same_text_counts_once(tmp_path: Path) -> None:
    for name, text in (("x.txt", "same"), ("y.txt", "same"), ("z.txt", "other")):
        (tmp_path / name).write_text(text)
    documents = read_documents([str(tmp_path / "z.txt"), str(tmp_path)])
    assert [d.name for d in documents] == ["z.txt", "x.txt"]


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no corpus .*absent\.txt.*pydoc"):
        read_documents([str(tmp_path / "absent.txt")])
    with pytest.raises(ConfigError, match=r"text files in the directory, found none"):
        read_documents([str(tmp_path)])
    with pytest.raises(ConfigError, match="at least one corpus: pydoc"):
        read_documents([])
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.txt: expected UTF-8.* byte 0xfc at offset 2"):
        read_documents([str(latin)])
    blank = tmp_path / "blank.txt"
    blank.write_text(" \n")
    with pytest.raises(ConfigError, match=r"blank\.txt: expected text"):
        read_documents([str(blank)])
    huge = tmp_path / "huge.txt"
    with huge.open("wb") as file:
        file.truncate(1 << 40)  # sparse: takes no space
    with pytest.raises(ConfigError, match=r"expected at most .* got 1099511627776"):
        read_documents([str(huge)])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"plain", id="not-gzip"),
        pytest.param(gzip.compress(b"cut off")[:-4], id="cut-off"),
    ],
)
def test_broken_archives_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.gz"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.gz: expected a whole gzip file"):
        read_documents([str(file)])


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress(bytes(33 << 20)))
    with pytest.raises(ConfigError, match=r"bomb\.gz: expected at most"):
        read_documents([str(file)])


def test_wikitext_is_split_into_articles() -> None:
    text = (
        " \n = First = \n\n Words . \n\n = = Section = = \n\n More . \n\n = Second = \n\n End . \n"
    )
    first, second = split_articles(text, "wikitext2-test")
    assert (first.name, second.name) == ("wikitext2-test/First", "wikitext2-test/Second")
    assert "Section" in first.text
    assert second.text.endswith("End .")
