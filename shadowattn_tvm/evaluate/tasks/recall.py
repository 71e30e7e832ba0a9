"""Recall of the INT8 pilot: how many of the keys that exact scores would choose it chooses."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...compiler.kernel_parameters import shadow_spec
from ...errors import ConfigError
from ..context import EvaluationContext
from ..document import Count, Fraction, TaskResult
from ..pilot_recall import PilotRecall

WORST_PART = 0.1
"""Of the sparse heads, in `worst_decile`."""


class RecallResult(TaskResult):
    """Recall at k, k being what the head keeps at that point, on the dense model's queries and
    keys. Sparse heads only.

    Attributes
    ----------
    mean : over sparse heads, each the mean over its lists.
    worst_decile : over the tenth of the sparse heads with the lowest recall, at least one.
    lists : looked at in all.
    windows : looked at.
    by_head : `[layer][head]`; null where the head is dense.
    """

    mean: Fraction
    worst_decile: Fraction
    lists: Count
    windows: Count
    by_head: Annotated[
        tuple[Annotated[tuple[Fraction | None, ...], Field(strict=False)], ...],
        Field(strict=False),
    ]


def run_recall(context: EvaluationContext) -> RecallResult:
    """Prefill up to `settings.recall_windows` windows densely and look into every layer.

    Raises `ConfigError` where no head is sparse: a dense plan, or windows within `k_min`.
    """
    settings = context.settings
    observed = PilotRecall(shadow_spec(context.plan, context.architecture), settings.recall_rows)
    model = context.open_model()
    model.observe(observed.observe)
    windows = context.windows[: max(settings.recall_windows, settings.min_windows)]
    for done, window in enumerate(windows):
        context.progress("recall", done, len(windows))
        model.session.reset()
        model.session.prefill(window.token_ids.tolist())
    model.session.reset()
    model.use_kernels()
    context.progress("recall", len(windows), len(windows))
    if not observed.num_lists.any():
        raise ConfigError(
            f"recall: expected sparse heads, but in windows of {settings.context_tokens} tokens "
            f"this plan (k_min {context.plan.k_min}) keeps everything; give a longer --context or "
            "a sparser plan"
        )
    return summarize(observed.recall_sum, observed.num_lists, len(windows))


def summarize(
    recall_sum: NDArray[np.float64], num_lists: NDArray[np.int64], num_windows: int
) -> RecallResult:
    """The figures over heads, from sums `[layers, heads]`; at least one list."""
    sparse = num_lists > 0
    recalls = np.sort(recall_sum[sparse] / num_lists[sparse])
    worst = max(1, round(WORST_PART * len(recalls)))
    return RecallResult(
        mean=float(recalls.mean()),
        worst_decile=float(recalls[:worst].mean()),
        lists=int(num_lists.sum()),
        windows=num_windows,
        by_head=tuple(
            tuple(
                float(total / count) if count else None
                for total, count in zip(totals, counts, strict=True)
            )
            for totals, counts in zip(recall_sum.tolist(), num_lists.tolist(), strict=True)
        ),
    )
