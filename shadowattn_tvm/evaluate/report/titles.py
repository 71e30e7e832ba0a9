"""What reports call things, in one place, so that tables and plots agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..sweep_document import Kind


@dataclass(frozen=True)
class Title:
    """A sweep's heading and the axis of its plot; no axis = its points have no order."""

    heading: str
    axis: str | None = None


TITLES: Mapping[Kind, Title] = {
    "ratio": Title("Loss by budget", "past fraction"),
    "buckets": Title("Loss by number of scale buckets", "buckets a head"),
    "sigma": Title("Loss by step of the bucket grid", "sigma"),
    "method": Title("Loss by allocation method, same budget"),
    "sharing": Title("Loss by who shares a list"),
    "voters": Title("Loss by how many of a list's queries vote on it"),
    "rest": Title("Loss by what becomes of keys on no list"),
    "pilot": Title("Loss by how the estimate is computed"),
    "baselines": Title("shadowAttn and the paper's baselines"),
    "ablation": Title("Ablation"),
}

CHANGE = "perplexity against dense (%)"
