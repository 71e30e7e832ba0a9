"""The paper's allocation (offline stage, equation 3): keep ratios in proportion to importance.

ratio(i) = r * N * clamp(headImp(i) * layerImp(j)) / sum(clamp(headImp * layerImp)) over all N
heads, head i being in layer j, with the importances loss(ablated) - loss. What exceeds 1 is cut and
given to the others in proportion, until none exceeds 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError
from .ablation_document import Ablation

SMALLEST_PRODUCT = 1e-6
"""Lower clamp, in nats squared: a head and a layer that cost a thousandth of a nat each, about what
a measurement on some ten thousand tokens can tell from nothing. Every head keeps a trace."""

LARGEST_PRODUCT = 1.0
"""Upper clamp, in nats squared: a head and a layer that cost a nat each are indispensable. The
paper names no bounds; without one the first layer alone would set everyone's proportions."""


def paper_ratios(ablation: Ablation, ratio: float) -> tuple[tuple[float, ...], ...]:
    """`[layer][query head]` keep ratios, 0..1, whose mean is `ratio`.

    Raises `ConfigError` for a ratio outside 0..1.
    """
    importance = paper_importance(ablation)
    width = ablation.inputs.num_q_heads
    flat = share_budget([x for row in importance for x in row], ratio)
    return tuple(tuple(flat[i : i + width]) for i in range(0, len(flat), width))


def paper_importance(
    ablation: Ablation,
    *,
    smallest: float = SMALLEST_PRODUCT,
    largest: float = LARGEST_PRODUCT,
) -> tuple[tuple[float, ...], ...]:
    """`[layer][query head]`: clamp(headImp * layerImp), in nats squared.

    An importance below 0 (the loss falls without the head or layer) counts as 0 first, so that two
    of them don't make an important head.
    """
    loss = ablation.baseline.mean
    rows = []
    for layer in ablation.layers:
        layer_importance = max(layer.bypassed.mean - loss, 0.0)
        products = (max(head.mean - loss, 0.0) * layer_importance for head in layer.heads)
        rows.append(tuple(min(max(product, smallest), largest) for product in products))
    return tuple(rows)


def share_budget(importance: Sequence[float], ratio: float) -> list[float]:
    """Equation 3 with its redistribution: `len(importance)` ratios, 0..1, whose mean is `ratio`, in
    proportion to `importance` (all positive) among those below 1.

    Raises `ConfigError` for a ratio outside 0..1.
    """
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError(f"expected a ratio between 0 and 1, got {ratio}")
    assert min(importance) > 0.0
    budget = ratio * len(importance)
    cut: set[int] = set()
    while True:
        open_sum = sum(x for i, x in enumerate(importance) if i not in cut)
        if not open_sum:
            return [1.0] * len(importance)
        factor = max(budget - len(cut), 0.0) / open_sum
        above = {i for i, x in enumerate(importance) if i not in cut and factor * x > 1.0}
        if not above:
            return [1.0 if i in cut else factor * x for i, x in enumerate(importance)]
        cut |= above
