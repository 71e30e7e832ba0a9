"""From a graph to its object, and from objects to a shared library."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm

from tir_kernels.hexagon.build import build_object

from ...config.programs import run_tool
from ...graph import GRAPH_ENTRY, PilotGraph, pilot_module
from ...transform import WORKSPACE_BYTES, InlineCallTIR
from .tools import LINKER, TIMEOUT_S

_ELF_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_SECTION_HEADER = struct.Struct("<10I")
_PROGBITS, _ALLOCATED = 1, 2


@dataclass(frozen=True)
class GraphObject:
    """A compiled graph: a relocatable object with one function, and the room it needs."""

    elf: bytes
    workspace_bytes: int


def compile_graph(graph: PilotGraph, architecture: str) -> GraphObject:
    """One graph for one DSP."""
    passes = tvm.transform.Sequential([InlineCallTIR(GRAPH_ENTRY, graph.symbol)])
    module = passes(pilot_module(graph))
    function = module[graph.symbol]
    built = build_object({graph.symbol: function}, architecture)
    return GraphObject(built.elf, int(function.attrs[WORKSPACE_BYTES]))


def strip(elf: bytes, path: Path) -> None:
    """Write an object without what debuggers read."""
    unstripped = path.with_suffix(".unstripped")
    unstripped.write_bytes(elf)
    run_tool(
        [LINKER, "-m", "hexagonelf", "-r", "--strip-debug", str(unstripped), "-o", str(path)],
        TIMEOUT_S,
    )
    unstripped.unlink()


def link_shared(objects: Sequence[Path], library: Path) -> None:
    """All objects in one shared object, which needs no other."""
    name = ["-soname", library.name]
    flags = ["-m", "hexagonelf", "-shared", "--no-undefined", *name]
    run_tool([LINKER, *flags, *map(str, objects), "-o", str(library)], TIMEOUT_S)


def code_bytes(elf: bytes) -> int:
    """Bytes of code and constants that a program loads of an object."""
    header = _ELF_HEADER.unpack_from(elf)
    offset, size, count = header[6], header[11], header[12]
    sections = [_SECTION_HEADER.unpack_from(elf, offset + i * size) for i in range(count)]
    return sum(s[5] for s in sections if s[1] == _PROGBITS and s[2] & _ALLOCATED)
