"""What counts as the same answer, and for whom."""

from __future__ import annotations

import numpy as np
import pytest

from shadowattn_tvm.bench.agreement import agreement, require_agreement, worst
from shadowattn_tvm.bench.model_document import Agreement
from shadowattn_tvm.bench.reference import WrongResultError
from shadowattn_tvm.errors import ConfigError, LibraryError

DENSE = np.array([2.0, 1.9, -1.0], np.float32)
NEAR = np.array([1.95, 2.0, -1.0], np.float32)
"""Another first token, nearly the same distribution."""
FAR = np.array([-5.0, -5.0, 8.0], np.float32)


def test_divergence_by_hand() -> None:
    found = agreement(
        np.log([0.5, 0.5]).astype(np.float32), np.log([0.75, 0.25]).astype(np.float32)
    )
    assert found.kl_nats == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), rel=1e-5)
    assert found.same_token


def test_a_padded_vocabulary_does_not_count() -> None:
    padded = np.concatenate([DENSE, np.full(5, -3.0, np.float32)])
    assert agreement(DENSE, padded) == Agreement(kl_nats=0.0, same_token=True)


def test_torch_must_be_close() -> None:
    require_agreement("torch", DENSE, DENSE + np.float32(1e-3))
    with pytest.raises(WrongResultError, match=r"differ by 0\.1 in a logit"):
        require_agreement("torch", DENSE, NEAR)


@pytest.mark.parametrize("name", ["shadow", "llama_cpp"])
def test_others_may_differ_a_little_or_keep_the_token(name: str) -> None:
    found = require_agreement(name, DENSE, NEAR)  # type: ignore[arg-type]
    assert not found.same_token
    assert require_agreement(name, DENSE, 3 * DENSE).same_token  # type: ignore[arg-type]


def test_another_answer_is_refused() -> None:
    with pytest.raises(WrongResultError, match="shadow: its next token is another"):
        require_agreement("shadow", DENSE, FAR)
    with pytest.raises(ConfigError, match="is --gguf the file"):
        require_agreement("llama_cpp", DENSE, FAR)
    with pytest.raises(LibraryError, match="finite"):
        require_agreement("shadow", DENSE, np.full(3, np.nan, np.float32))


def test_the_worst_of_several() -> None:
    found = worst([Agreement(kl_nats=0.1, same_token=True), Agreement(kl_nats=0, same_token=False)])
    assert found == Agreement(kl_nats=0.1, same_token=False)
