"""The public implementation's allocation (AE): in proportion to products of perplexities.

It ranks min(head perplexity * layer perplexity, 102400) and hands out what exceeds 1 in one pass in
row-major order, an equal part for each head not yet served. Both are kept to the last bit, the
order of float64 operations and one slip included, so that equal perplexities give equal profiles.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError
from .ablation_document import Ablation

LARGEST_PERPLEXITY_PRODUCT = 102400.0
"""The public implementation's upper clamp. A perplexity is at least 1, so none is needed below."""


def ae_ratios(ablation: Ablation, ratio: float) -> tuple[tuple[float, ...], ...]:
    """`[layer][query head]` keep ratios, 0..1; their mean is `ratio` but for the slip described in
    `hand_out_excess`. Raises `ConfigError` for a ratio that isn't above 0 and at most 1."""
    return ratios_of_perplexities(
        [[head.perplexity for head in layer.heads] for layer in ablation.layers],
        [layer.bypassed.perplexity for layer in ablation.layers],
        ratio,
    )


def ratios_of_perplexities(
    heads: Sequence[Sequence[float]], layers: Sequence[float], ratio: float
) -> tuple[tuple[float, ...], ...]:
    """See `ae_ratios`; `heads` is `[layer][query head]`, `layers` `[layer]`."""
    if not 0.0 < ratio <= 1.0:
        raise ConfigError(f"expected a ratio above 0 and at most 1, got {ratio}")
    width = len(heads[0])
    importance = [
        min(head * layer, LARGEST_PERPLEXITY_PRODUCT)
        for row, layer in zip(heads, layers, strict=True)
        for head in row
    ]
    total = sum_in_order(importance)
    # The order of these factors decides the last bits.
    flat = [ratio * width * len(layers) * value / total for value in importance]
    hand_out_excess(flat)
    return tuple(tuple(flat[i : i + width]) for i in range(0, len(flat), width))


def hand_out_excess(ratios: list[float]) -> None:
    """Cut every ratio above 1, in place, and share the sum of what was cut in one pass: each ratio
    below 1 gets what is left divided by the number of ratios still to come.

    A ratio that would pass 1 that way becomes 1, and what it did get is not taken off what is left,
    a slip of the original that hands out slightly more than was cut.
    """
    excess = 0.0
    remaining = len(ratios)
    for index, value in enumerate(ratios):
        if value > 1.0:
            excess += value - 1.0
            ratios[index] = 1.0
            remaining -= 1
    for index, value in enumerate(ratios):
        if value < 1.0:
            addition = excess / remaining
            remaining -= 1
            if value + addition <= 1.0:
                ratios[index] = value + addition
                excess -= addition
            else:
                ratios[index] = 1.0


def sum_in_order(values: Sequence[float]) -> float:
    """Plain left-to-right float64 sum: from Python 3.12 on, the built-in compensates."""
    total = 0.0
    for value in values:
        total += value
    return total
