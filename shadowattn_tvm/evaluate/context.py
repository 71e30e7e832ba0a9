"""What every task is given: held-out text, the two compiled libraries, and the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..config.architecture import LlamaConfig
from ..corpora import Document, Window
from ..plan import Plan
from ..runtime.session import Session
from ..runtime.tokenizer import ModelTokenizer
from ..weights import ModelDirectory
from .open_model import OpenModel

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done and how many there are."""


@dataclass(frozen=True)
class EvaluationSettings:
    """Sizes and limits of an evaluation.

    Attributes
    ----------
    num_windows : windows to sample.
    context_tokens : tokens of a window, the prefix included.
    prefill_chunk_tokens : tokens of a prefill chunk.
    min_windows, min_documents : what any task must see.
    seed : of everything that is drawn at random.
    recall_windows, recall_rows : windows that recall is measured on, and the query rows (or lists)
        of each head and chunk.
    continuation_tokens : tokens continued for agreement.
    """

    num_windows: int
    context_tokens: int
    prefill_chunk_tokens: int
    min_windows: int = 20
    min_documents: int = 3
    seed: int = 0
    recall_windows: int = 20
    recall_rows: int = 16
    continuation_tokens: int = 32


@dataclass(frozen=True)
class EvaluationContext:
    """The material of one evaluation.

    Attributes
    ----------
    directory, architecture, tokenizer : the model.
    plan : what `shadow` was compiled with.
    documents : held-out texts, none of them calibrated on.
    windows : token windows of them, `settings.context_tokens` each, the model's prefix first.
    prefix_ids : that prefix; may be empty.
    dense, shadow : sessions on the two compiled libraries, of the same limits; tasks `reset` them
        before use and needn't leave them clean.
    open_model : opens the model whose attention can be exchanged (slow the first time it is
        compiled); only for tasks that need to look inside.
    progress : to be called as work proceeds.
    """

    directory: ModelDirectory
    architecture: LlamaConfig
    tokenizer: ModelTokenizer
    plan: Plan
    documents: tuple[Document, ...]
    windows: tuple[Window, ...]
    prefix_ids: tuple[int, ...]
    dense: Session
    shadow: Session
    open_model: Callable[[], OpenModel]
    settings: EvaluationSettings
    progress: Progress = lambda what, done, total: None
