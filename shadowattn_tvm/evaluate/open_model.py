"""A compiled model whose attention can be exchanged at run time.

Compiling a model takes most of a minute, its two prefill kernels a few seconds, a Python function
nothing. The open library (`compiler.compile_open_library`) leaves the prefill slots to functions
found by name when it is loaded. Each `OpenModel` lends it its own two and takes the names back at
once: the library keeps what it found, so any number of models live side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import tvm_ffi

from tir_kernels.attention.dense import dense_paged_prefill, dense_ragged_prefill
from tir_kernels.build import build_kernels
from tir_kernels.features import cpu_features
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.spec import ShadowSpec

from ..compiler import Phase, compile_open_library, resolve_target
from ..compiler.kernel_parameters import attention_spec
from ..config.chat_config import model_dtype
from ..runtime.machine import Weights
from ..runtime.session import Session
from ..transform import OPEN_SLOT_FUNCTIONS
from ..transform.kv_cache_slots import Slot
from ..weights import ModelDirectory
from .attention import AttentionImplementation
from .slot_adapter import Observer, SlotFunction, observed_paged_slot, paged_slot, ragged_slot


class OpenModel:
    """A session and the attention it runs with; dense to begin with.

    Attributes
    ----------
    session : to be used as any other. It counts pairs as if all attention were dense.
    """

    def __init__(
        self,
        directory: ModelDirectory,
        library_path: Path,
        *,
        context_window_size: int | None = None,
        prefill_chunk_size: int | None = None,
        weights: Weights | None = None,
    ) -> None:
        """Load an open library. Raises like `Session`."""
        self._attention = attention_spec(
            directory.architecture, model_dtype(directory.quantization)
        )
        self._paged, self._ragged = self._dense_kernels()
        self._current = {Slot.PAGED_PREFILL: self._paged, Slot.RAGGED_PREFILL: self._ragged}
        with _lent({name: self._dispatcher(slot) for slot, name in OPEN_SLOT_FUNCTIONS.items()}):
            self.session = Session(
                directory,
                library_path,
                context_window_size=context_window_size,
                prefill_chunk_size=prefill_chunk_size,
                weights=weights,
            )

    def use_kernels(
        self, *, paged: SlotFunction | None = None, ragged: SlotFunction | None = None
    ) -> None:
        """From now on attend with these kernels, called in the form of the slots; the dense one
        where none is given."""
        self._current[Slot.PAGED_PREFILL] = paged or self._paged
        self._current[Slot.RAGGED_PREFILL] = ragged or self._ragged

    def use_plan(self, spec: ShadowSpec) -> None:
        """From now on attend with the kernel of a plan, compiled here: the same bits as the library
        compiled with that plan."""
        stored = replace(spec.attention, dtype=self._attention.dtype)
        self.use_kernels(paged=compile_shadow_kernel(replace(spec, attention=stored)))

    def use(self, implementation: AttentionImplementation) -> None:
        """From now on attend with `implementation`, in Python."""
        self.use_kernels(
            paged=paged_slot(implementation.paged, self._attention),
            ragged=ragged_slot(implementation.ragged),
        )

    def observe(self, observe: Observer) -> None:
        """From now on attend densely, and show `observe` every chunk's queries, keys and values
        first."""
        self.use_kernels(paged=observed_paged_slot(self._paged, observe, self._attention))

    def current(self) -> Callable[[], None]:
        """A function that brings back what it attends with now."""
        slots = dict(self._current)
        return lambda: self._current.update(slots)

    def _dispatcher(self, slot: Slot) -> SlotFunction:
        current = self._current  # not self: the library would keep the model, and it the library

        def call(*arguments: Any) -> None:
            current[slot](*arguments)

        return call

    def _dense_kernels(self) -> tuple[SlotFunction, SlotFunction]:
        target = resolve_target("host")
        attention, features = self._attention, cpu_features(target)
        module = build_kernels(
            {
                "paged": dense_paged_prefill(attention, features),
                "ragged": dense_ragged_prefill(attention, features),
            },
            target,
        )
        return module["paged"], module["ragged"]


def open_model(
    directory: ModelDirectory,
    *,
    context_tokens: int,
    prefill_chunk_tokens: int,
    weights: Weights | None = None,
    on_phase: Callable[[Phase], None] = lambda phase: None,
) -> OpenModel:
    """Compile (once; it is cached) and load the open library. Raises `ConfigError`,
    `CompileError`, `LibraryError`, `WeightsError`."""
    limits = f"context_window_size={context_tokens};prefill_chunk_size={prefill_chunk_tokens}"
    library = compile_open_library(directory, overrides=limits, on_phase=on_phase)
    return OpenModel(directory, library.path, weights=weights)


def compile_shadow_kernel(spec: ShadowSpec) -> SlotFunction:
    """The paged-prefill kernel of a plan, for this machine."""
    target = resolve_target("host")
    kernel = shadow_paged_prefill(spec, cpu_features(target))
    function: SlotFunction = build_kernels({"shadow": kernel}, target)["shadow"]
    return function


@contextmanager
def _lent(functions: dict[str, SlotFunction]) -> Iterator[None]:
    """Have `functions` found by name while a library is being loaded, and no longer."""
    for name, function in functions.items():
        tvm_ffi.register_global_func(name, function, override=True)
    try:
        yield
    finally:
        for name in functions:
            tvm_ffi.registry.remove_global_func(name)
