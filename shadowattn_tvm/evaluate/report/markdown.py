"""A sweep as a Markdown table, with what is needed to read it and to make it again."""

from __future__ import annotations

from collections.abc import Iterable

from ..sweep_document import Difference, Point, SweepDocument
from .titles import TITLES


def markdown(document: SweepDocument) -> str:
    """Heading, conditions, table, notes, texts, command."""
    documents = {window.document: window.document_sha256 for window in document.windows}
    parts = [
        f"# {TITLES[document.kind].heading}",
        (
            f"{document.model} ({document.quantization}), {len(document.windows)} windows of "
            f"{document.context_tokens} tokens from {len(documents)} documents, prefilled in "
            f"chunks of {document.prefill_chunk_tokens}. Plan {document.plan_sha256[:12]}, "
            f"allocated by `{document.plan_method}`. Perplexity changes with 95 % intervals "
            "(bootstrap over windows)."
        ),
        _table(document),
    ]
    parts += document.notes
    parts += [
        "Texts:\n" + "\n".join(f"- {name}, SHA-256 `{sha}`" for name, sha in documents.items()),
        f"Command: `{document.command}`",
        f"Made on {document.created:%Y-%m-%d} with "
        + ", ".join(f"{name} {version}" for name, version in document.versions.items())
        + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _table(document: SweepDocument) -> str:
    header = ("setting", "past", "all pairs", "against dense", f"against {document.base}")
    rows = [_row(point, document.base) for point in document.points]
    return "\n".join(map(_line, (header, ("---", "--:", "--:", "--:", "--:"), *rows)))


def _row(point: Point, base: str) -> tuple[str, ...]:
    return (
        point.label,
        _share(point.past_fraction),
        _share(point.total_fraction),
        _change(point.against_dense),
        "" if point.label == base else _change(point.against_base),
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _share(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.1f} %"


def _change(difference: Difference) -> str:
    low, high = difference.ci95_percent
    return f"{difference.percent:+.2f} % ({low:+.2f} to {high:+.2f})"
