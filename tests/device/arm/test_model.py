"""A whole model on the device: a Relax virtual machine with a paged KV cache, over RPC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.errors import LibraryError
from shadowattn_tvm.plan import Plan
from shadowattn_tvm.runtime.machine import RemoteMachine
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory

from .machines import Machine

pytestmark = pytest.mark.arm

PROMPT = [int(i) for i in np.random.default_rng(1).integers(0, 256, 41)]
"""Three chunks of 16: two of them have a past."""

NEW_TOKENS = 5


@pytest.fixture(params=["dense", "shadow"])
def plan(request: pytest.FixtureRequest, tiny_plan: Plan) -> Plan | None:
    return tiny_plan if request.param == "shadow" else None


@pytest.fixture
def remote(phone: Machine) -> RemoteMachine:
    return RemoteMachine(phone.kernels.session, shares_files=phone.shares_files)


def generate(session: Session) -> tuple[list[int], np.ndarray]:
    """Greedy tokens, and the logits of every step."""
    logits = [session.prefill(PROMPT)]
    tokens = []
    for _ in range(NEW_TOKENS):
        tokens.append(int(logits[-1].argmax()))
        logits.append(session.decode(tokens[-1]))
    return tokens, np.stack(logits)


def test_a_tiny_llama_gives_the_hosts_tokens(
    plan: Plan | None,
    tiny_directory: ModelDirectory,
    tiny_library: Path,
    tiny_shadow_library: Path,
    remote: RemoteMachine,
    tmp_path: Path,
) -> None:
    here = Session(tiny_directory, tiny_library if plan is None else tiny_shadow_library)
    library = compile_library(tiny_directory, plan, device="arm64", output=tmp_path / "arm.so").path
    there = Session(tiny_directory, library, machine=remote)
    want_tokens, want_logits = generate(here)
    tokens, logits = generate(there)
    assert tokens == want_tokens
    np.testing.assert_allclose(logits, want_logits, rtol=0, atol=1e-4)
    assert there.prefill_pairs == here.prefill_pairs
    last_chunk = PROMPT[-(len(PROMPT) % 16) :]
    there.rollback(NEW_TOKENS + len(last_chunk))  # the cache is trimmed over there
    np.testing.assert_allclose(there.prefill(last_chunk), want_logits[0], rtol=0, atol=1e-4)


def test_a_library_for_another_machine_is_refused(
    tiny_directory: ModelDirectory, tiny_library: Path, remote: RemoteMachine
) -> None:
    with pytest.raises(LibraryError, match=r"machine it is to run on.*--device"):
        Session(tiny_directory, tiny_library, machine=remote)
