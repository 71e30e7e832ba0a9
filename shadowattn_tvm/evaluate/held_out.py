"""Held-out text: what a plan was calibrated on is left out, and what is left must be enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..corpora import Document, TextEncoder, Window, sample_windows
from ..errors import ConfigError
from ..plan import Plan
from .context import EvaluationSettings


@dataclass(frozen=True)
class HeldOut:
    """Texts to evaluate on.

    Attributes
    ----------
    documents : not among those the plan was calibrated on.
    left_out : names of those that were.
    windows : of the former, taking turns.
    """

    documents: tuple[Document, ...]
    left_out: tuple[str, ...]
    windows: tuple[Window, ...]


def held_out(
    documents: Sequence[Document],
    plan: Plan,
    tokenizer: TextEncoder,
    prefix_ids: Sequence[int],
    settings: EvaluationSettings,
) -> HeldOut:
    """Leave out what was calibrated on (by hash) and sample windows of the rest.

    Raises `ConfigError` if fewer than `settings.min_documents` documents or `min_windows` windows
    are left: fewer say little about other texts.
    """
    calibrated_on = {document.sha256 for document in plan.provenance.corpus}
    kept = tuple(d for d in documents if d.sha256 not in calibrated_on)
    left_out = tuple(d.name for d in documents if d.sha256 in calibrated_on)
    if len(kept) < settings.min_documents:
        raise ConfigError(
            f"expected at least {settings.min_documents} documents that the plan was not "
            f"calibrated on, got {len(kept)} of {len(documents)}"
            f"{_named(left_out)}; give more with --corpus"
        )
    windows = sample_windows(
        kept,
        tokenizer,
        window_tokens=settings.context_tokens,
        max_windows=settings.num_windows,
        prefix_ids=prefix_ids,
        min_documents=settings.min_documents,
    )
    if len(windows) < settings.min_windows:
        raise ConfigError(
            f"expected at least {settings.min_windows} windows of {settings.context_tokens} tokens,"
            f" got {len(windows)} from {len(kept)} documents{_named(left_out)}; ask for more with "
            "--windows, give more text with --corpus, or accept fewer with --min-windows"
        )
    return HeldOut(kept, left_out, windows)


def _named(left_out: Sequence[str]) -> str:
    return f" (calibrated on: {', '.join(left_out)})" if left_out else ""
