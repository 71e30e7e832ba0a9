"""The public implementation's allocation: by hand, and its own published test vector."""

from __future__ import annotations

import hashlib
import math

import pytest

from shadowattn_tvm.calibrate.ae import ae_ratios, hand_out_excess, ratios_of_perplexities
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.plan.ae_profile import format_ae_profile

from .test_paper import measured

PUBLISHED_VECTOR_SHA256 = "473271b37b9c34fd6e9b9f795d8c8b0814a3735e2b45c1386363e7544bba53cc"
"""What the public implementation's test says of its profile for the perplexities below
(UbiquitousLearning/mllm, tools/head_sparsity_profiler)."""


def test_products_by_hand() -> None:
    # Products 10, 20 | 60, 80; sum 170; budget 0.25 * 4 = 1.
    got = ratios_of_perplexities([[1.0, 2.0], [3.0, 4.0]], [10.0, 20.0], 0.25)
    assert got == (pytest.approx((10 / 170, 20 / 170)), pytest.approx((60 / 170, 80 / 170)))


def test_products_are_clamped() -> None:
    # 1e6 and 307200 become 102400; 25600 and 1000 stay.
    got = ratios_of_perplexities([[1000.0, 307.2], [25.6, 1.0]], [1000.0, 1000.0], 0.25)
    total = 102400.0 * 2 + 25600.0 + 1000.0
    want = [102400.0 / total, 102400.0 / total, 25600.0 / total, 1000.0 / total]
    assert [r for row in got for r in row] == pytest.approx(want)


def test_excess_is_handed_out_in_order_by_hand() -> None:
    # Cut 0.9. 0.2 gets 0.9 / 3; 0.9 would get 0.6 / 2, passes 1 and becomes 1, with nothing taken
    # off the 0.6; 0.1 is the last and gets all of it.
    ratios = [1.9, 0.2, 0.9, 0.1]
    hand_out_excess(ratios)
    assert ratios == pytest.approx([1.0, 0.5, 1.0, 0.7])
    assert sum(ratios) == pytest.approx(1.9 + 0.2 + 0.9 + 0.1 + 0.1)  # the slip: 0.1 out of nothing


def test_the_published_vector_to_the_last_bit() -> None:
    heads = [[1.0 + (layer * 12 + head) / 1000.0 for head in range(12)] for layer in range(28)]
    layers = [1.0 + layer / 10.0 for layer in range(28)]
    text = format_ae_profile(ratios_of_perplexities(heads, layers, 0.2))
    assert hashlib.sha256(text.encode()).hexdigest() == PUBLISHED_VECTOR_SHA256


def test_a_measurement_is_taken_by_its_perplexities() -> None:
    ablation = measured(2.0, [2.5, 2.25], [[2.125, 2.25], [2.5, 3.0]])
    heads = [[math.exp(2.125), math.exp(2.25)], [math.exp(2.5), math.exp(3.0)]]
    want = ratios_of_perplexities(heads, [math.exp(2.5), math.exp(2.25)], 0.2)
    assert ae_ratios(ablation, 0.2) == want


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1, float("nan")])
def test_ratios_that_cannot_be_are_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        ratios_of_perplexities([[1.0]], [1.0], ratio)


def test_everything_kept_is_everything_kept() -> None:
    got = ratios_of_perplexities([[2.0, 2.0]], [3.0], 1.0)
    assert got == ((1.0, 1.0),)
