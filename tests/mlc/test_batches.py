"""The functions MLC's engine calls: several sequences of different lengths in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm_ffi import Shape

from shadowattn_tvm.runtime.library import ModelLibrary
from shadowattn_tvm.runtime.machine import ThisMachine, load_weights
from shadowattn_tvm.runtime.session import Session
from tests.mlc.conftest import MlcModel

pytestmark = [
    pytest.mark.mlc,
    pytest.mark.parametrize("mlc_model", ["llama"], indirect=True),
]

CHUNK = 8
PROMPTS = tuple(np.random.default_rng(7).integers(0, 256, length).tolist() for length in (96, 48))


class Batch:
    """Sequences in one cache, driven as MLC's engine does."""

    def __init__(self, model: MlcModel, path: Path) -> None:
        library = ModelLibrary(path, ThisMachine())
        weights = load_weights(model.directory)
        self.parameters = [weights[p.name] for p in library.metadata.params]
        self.library = library
        sizes = (len(PROMPTS), 256, 16, 16, 0)
        create = library.function("create_tir_paged_kv_cache")
        self.cache = create(*(Shape([size]) for size in sizes))
        for sequence in range(len(PROMPTS)):
            self._builtin("kv_state_add_sequence")(self.cache, sequence)

    def prefill(self, new: dict[int, Sequence[int]]) -> NDArray[np.float32]:
        """Logits after each sequence's new tokens."""
        lengths = [len(tokens) for tokens in new.values()]
        last = tvm.runtime.tensor(np.cumsum(lengths, dtype=np.int32) - 1)
        return self._forward("batch_prefill", new, (1, sum(lengths)), last)

    def decode(self, new: dict[int, int]) -> NDArray[np.float32]:
        return self._forward("batch_decode", {s: [t] for s, t in new.items()}, (len(new), 1))

    def _forward(
        self, name: str, new: dict[int, Sequence[int]], shape: tuple[int, int], *more: object
    ) -> NDArray[np.float32]:
        lengths = Shape([len(tokens) for tokens in new.values()])
        self._builtin("kv_state_begin_forward")(self.cache, Shape(list(new)), lengths)
        ids = np.concatenate(list(new.values())).astype(np.int32)
        embedded = self.library.function("embed")(tvm.runtime.tensor(ids), self.parameters)
        embedded = self._builtin("reshape")(embedded, Shape([*shape, embedded.shape[1]]))
        arguments = (embedded, *more, self.cache, self.parameters)
        logits, _ = self.library.function(name)(*arguments)
        self._builtin("kv_state_end_forward")(self.cache)
        return np.asarray(logits.numpy()).reshape(len(new), -1)

    @staticmethod
    def _builtin(name: str) -> Callable[..., object]:
        return tvm.get_global_func(f"vm.builtin.{name}")


def test_sequences_do_not_see_each_other(
    mlc_model: MlcModel, compile_for: Callable[[Path | str], Path]
) -> None:
    path = compile_for(mlc_model.plan_file)
    batch = Batch(mlc_model, path)
    last: dict[int, NDArray[np.float32]] = {}
    for begin in range(0, max(map(len, PROMPTS)), CHUNK):
        new = {s: p[begin : begin + CHUNK] for s, p in enumerate(PROMPTS) if begin < len(p)}
        last |= dict(zip(new, batch.prefill(new), strict=True))
    decoded = batch.decode({0: 11, 1: 12})
    for sequence, prompt in enumerate(PROMPTS):
        alone = Session(mlc_model.directory, path, prefill_chunk_size=CHUNK)
        expected = (alone.prefill(prompt), alone.decode(11 + sequence))
        for got, wanted in zip((last[sequence], decoded[sequence]), expected, strict=True):
            np.testing.assert_allclose(got[: len(wanted)], wanted, rtol=1e-4, atol=1e-4)
