"""A result file for people: one line a figure."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from .results import EvaluationRecord


def record_table(record: EvaluationRecord) -> Table:
    """The figures of every task that was run, dense beside shadowAttn where both have one."""
    budget = record.budget
    table = Table(
        title=f"{record.model.directory}, plan {record.plan.hash[:12]} ({record.plan.method}); "
        f"{budget.context_tokens} tokens in chunks of {budget.prefill_chunk_tokens}",
        title_justify="left",
    )
    for heading in ("figure", "dense", "shadowAttn", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for row in _rows(record):
        table.add_row(*row)
    return table


def _rows(record: EvaluationRecord) -> Iterator[tuple[str, str, str, str]]:
    budget, results = record.budget, record.results
    yield "past fraction", "100 %", f"{budget.past_fraction:.2%}", ""
    yield "total fraction", "100 %", f"{budget.total_fraction:.2%}", ""
    if results.recall is not None:
        recall = results.recall
        yield "recall of the pilot, mean", "", f"{recall.mean:.4f}", ""
        yield "recall of the pilot, worst tenth of heads", "", f"{recall.worst_decile:.4f}", ""
    if results.ppl is not None:
        ppl = results.ppl
        lower, upper = ppl.ci95_percent
        yield f"perplexity, {len(ppl.windows)} windows", f"{ppl.dense:.3f}", f"{ppl.shadow:.3f}", ""
        interval = f"{lower:+.3f} to {upper:+.3f} %"
        yield "perplexity, relative", "", f"{ppl.relative_percent:+.3f} %", interval
    for name, retrieval in (("passkey", results.passkey), ("needle", results.needle)):
        if retrieval is not None:
            yield (
                f"{name} found (recency control {retrieval.recency:.1%})",
                f"{retrieval.dense:.1%}",
                f"{retrieval.shadow:.1%}",
                "",
            )
    if results.agreement is not None:
        agreement = results.agreement
        lower, upper = agreement.kl_ci95_nats
        interval = f"{lower:.5f} to {upper:.5f}"
        yield "KL of the continuation, nats", "", f"{agreement.kl_nats:.5f}", interval
        lower, upper = agreement.greedy_match_ci95
        interval = f"{lower:.2%} to {upper:.2%}"
        yield "greedy match with dense", "", f"{agreement.greedy_match:.2%}", interval
