"""Contenders in processes of their own: what they answer, and what becomes of failures."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.contenders import ContenderProcess, ContenderSettings, running
from shadowattn_tvm.contenders.messages import pack_logits, unpack_logits
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory

TOKENS = [int(t) for t in np.random.default_rng(7).integers(0, 256, 44)]
PROMPT, NEXT = TOKENS[:40], TOKENS[40:]


def settings(directory: ModelDirectory, library: Path | None) -> ContenderSettings:
    return ContenderSettings(
        kind="hugging_face" if library is None else "compiled",
        model=str(directory.path),
        file=None if library is None else str(library),
        threads=1,
        context_tokens=len(TOKENS),
        prefill_chunk_tokens=16,
    )


def test_logits_survive_the_pipe() -> None:
    logits = np.array([1.5, -np.float32(1e-30), 3e38], np.float32)
    np.testing.assert_array_equal(unpack_logits(pack_logits(logits)), logits)


def test_both_ways_through_the_same_weights_agree(
    tiny_directory: ModelDirectory, tiny_library: Path
) -> None:
    session = Session(tiny_directory, tiny_library)
    after_prompt = session.prefill(PROMPT)
    after_next = [session.decode(token) for token in NEXT][-1]
    contenders = {
        "dense": settings(tiny_directory, tiny_library),
        "torch": settings(tiny_directory, None),
    }
    with running(contenders) as processes:
        for process in processes.values():
            for _ in range(2):  # a prompt forgets what was before
                answer = process.prefill(PROMPT)
                np.testing.assert_allclose(answer.logits, after_prompt, atol=1e-4)
            for _ in range(2):  # decoded tokens are taken back
                answer = process.decode(NEXT)
                np.testing.assert_allclose(answer.logits, after_next, atol=1e-4)
            assert answer.elapsed_ms > 0
            loaded, peak = process.loaded_memory_bytes, answer.peak_memory_bytes
            if loaded is not None:
                assert peak is not None
                assert peak >= loaded > 10 << 20


def test_the_users_mistakes_are_named(tiny_directory: ModelDirectory, tmp_path: Path) -> None:
    library = tmp_path / "none.so"
    with (
        pytest.raises(ConfigError, match=r"dense: .*none\.so"),
        running({"dense": settings(tiny_directory, library)}),
    ):
        pass


def test_ours_come_with_a_traceback(tiny_directory: ModelDirectory, tiny_library: Path) -> None:
    wrong = settings(tiny_directory, tiny_library).model_copy(update={"file": None})
    with (
        pytest.raises(RuntimeError, match=r"(?s)dense failed in its process.*AssertionError"),
        running({"dense": wrong}),
    ):
        pass


def test_a_process_that_the_system_stops(
    tiny_directory: ModelDirectory, tiny_library: Path
) -> None:
    process = ContenderProcess("dense", settings(tiny_directory, tiny_library))
    try:
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(ConfigError, match=r"dense: .* lack of memory"):
            process.wait_until_ready()
    finally:
        process.stop()
