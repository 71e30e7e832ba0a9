"""`trace`: a prefill's pipelines as a Chrome trace, which Perfetto reads too, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..compiler import compile_library
from ..config.atomic import write_text_atomically
from ..errors import ConfigError
from ..plan import Plan
from ..runtime.session import Session
from ..weights import ModelDirectory
from .stamps import Launch, collected_launches
from .trace_events import TraceDocument, trace_document

DEVICE = "host-npu"
"""Whose libraries have a pipeline."""


@dataclass(frozen=True)
class TracedPrefill:
    """The launches of a prefill, chunk after chunk, of every layer of the model."""

    launches: tuple[Launch, ...]
    num_layers: int
    num_tokens: int

    def document(self) -> TraceDocument:
        """What Chrome's trace viewer and Perfetto show."""
        return trace_document(self.launches, self.num_layers)

    def longest(self) -> int:
        """The index of the launch with the longest makespan."""
        spans = [launch.makespan_ms for launch in self.launches]
        return spans.index(max(spans))


def trace_prefill(
    directory: ModelDirectory, plan: Plan, token_ids: Sequence[int], *, prefill_chunk_tokens: int
) -> TracedPrefill:
    """Prefill the tokens in a library that stamps its stages.

    Raises `ConfigError` if there is no chunk with a past, and `CompileError` for a plan that has no
    pipeline.
    """
    if len(token_ids) <= prefill_chunk_tokens:
        raise ConfigError(
            f"expected more tokens than a prefill chunk of {prefill_chunk_tokens}, got "
            f"{len(token_ids)}: without a past there is nothing to trace"
        )
    library = compile_library(directory, plan, device=DEVICE, trace=True)
    with collected_launches() as launches:
        session = Session(directory, library.path, prefill_chunk_size=prefill_chunk_tokens)
        session.prefill(token_ids)
        taken = tuple(launches.take())
    return TracedPrefill(taken, directory.architecture.num_hidden_layers, len(token_ids))


def save_trace(document: TraceDocument, path: Path) -> None:
    """Write a trace file atomically. Raises `OutputError`."""
    write_text_atomically(path, document.model_dump_json() + "\n")
