"""WikiText-2 (raw), the paper's calibration corpus, fetched through huggingface_hub when asked for.

One document an article. The training split is for calibration and the test split for evaluation,
as the paper and everyone who reports perplexities use them.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from ..errors import ConfigError
from .document import Document
from .text_files import MAX_DOCUMENT_BYTES

_REPOSITORY = "ggml-org/ci"
"""Keeps the original archive of plain text; the data set's own repository holds Parquet files."""

_ARCHIVE = "wikitext-2-raw-v1.zip"

_HEADING = re.compile(r"^ = [^=\n]+ = $", re.MULTILINE)
"""The title of an article; its sections have more equals signs."""


def wikitext2_test_documents() -> tuple[Document, ...]:
    """The articles of the test split. Raises `ConfigError` when they can't be had."""
    return _articles("test")


def wikitext2_train_documents() -> tuple[Document, ...]:
    """The articles of the training split. Raises `ConfigError` when they can't be had."""
    return _articles("train")


def split_articles(text: str, name: str) -> tuple[Document, ...]:
    """The articles of a raw WikiText file, each from its title to the next."""
    starts = [match.start() for match in _HEADING.finditer(text)]
    bounds = zip(starts, [*starts[1:], len(text)], strict=True)
    articles = [text[start:end].strip() for start, end in bounds]
    return tuple(
        Document(f"{name}/{article.splitlines()[0].strip(' =')}", article) for article in articles
    )


def _articles(split: str) -> tuple[Document, ...]:
    archive = _download()
    member = f"wikitext-2-raw/wiki.{split}.raw"
    try:
        with zipfile.ZipFile(archive) as content, content.open(member) as file:
            text = file.read(MAX_DOCUMENT_BYTES + 1).decode("utf-8")
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(
            f"corpus wikitext2: expected UTF-8 text in {member} of {archive}, got {error}"
        ) from None
    documents = split_articles(text, f"wikitext2-{split}")
    if not documents:
        raise ConfigError(f"corpus wikitext2: expected articles in {member}, found none")
    return documents


def _download() -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise ConfigError(
            "corpus wikitext2: needs huggingface_hub, which is not installed: "
            "pip install 'shadowattn-tvm[calibrate]'"
        ) from None
    try:
        return Path(hf_hub_download(_REPOSITORY, _ARCHIVE, repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"corpus wikitext2: can't fetch {_ARCHIVE} of {_REPOSITORY} from Hugging Face "
            f"({reason}); without a network use pydoc or text files of your own"
        ) from None
