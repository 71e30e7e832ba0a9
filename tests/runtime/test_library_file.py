"""Metadata read from files: libraries for this machine, archives, and what is neither."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from shadowattn_tvm.errors import LibraryError
from shadowattn_tvm.plan import Plan
from shadowattn_tvm.runtime.library_file import read_metadata, require_library
from shadowattn_tvm.runtime.library_metadata import ParameterMetadata
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory


def test_is_what_the_library_says(
    tiny_directory: ModelDirectory, tiny_library: Path, tiny_shadow_library: Path
) -> None:
    for path in (tiny_library, tiny_shadow_library):
        assert read_metadata(path) == Session(tiny_directory, path).metadata


def test_is_found_in_an_archive(tiny_shadow_library: Path, tmp_path: Path) -> None:
    archive = tmp_path / "library.tar"
    with tarfile.open(archive, "w:gz") as tar:  # as TVM makes them
        tar.add(tiny_shadow_library, "lib0.o")
    assert read_metadata(archive) == read_metadata(tiny_shadow_library)


def test_the_right_library_passes(
    tiny_library: Path, tiny_shadow_library: Path, tiny_plan: Plan
) -> None:
    require_library(tiny_library, None)
    require_library(tiny_shadow_library, tiny_plan)


def test_others_are_refused(tiny_library: Path, tiny_shadow_library: Path, tiny_plan: Plan) -> None:
    with pytest.raises(LibraryError, match="compiled without shadowAttn, but --shadow-attn asks"):
        require_library(tiny_library, tiny_plan)
    with pytest.raises(LibraryError, match="asks for one compiled without shadowAttn"):
        require_library(tiny_shadow_library, None)
    other = tiny_plan.model_copy(update={"k_min": tiny_plan.k_min + 1})
    with pytest.raises(LibraryError, match="compiled with the plan"):
        require_library(tiny_shadow_library, other)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x7fELF and so on", b'..{"model_type": "llama", "quan\0', b'{"model_type": "'],
)
def test_no_library(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(content)
    with pytest.raises(LibraryError, match=r"library\.so"):
        read_metadata(path)


def test_a_description_that_lacks_something(tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(b'..{"model_type": "llama"}\0..')
    with pytest.raises(LibraryError, match="quantization"):
        read_metadata(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="can't read the library"):
        read_metadata(tmp_path / "none.so")


@pytest.mark.parametrize(
    ("shape", "dtype", "takes"),
    [
        ((49152, 576), "float32", True),
        ((7, 576), "float32", True),
        ((7, 577), "float32", False),
        ((7, 576, 1), "float32", False),
        ((7, 576), "uint32", False),
    ],
)
def test_named_extents_take_any(shape: tuple[int, ...], dtype: str, takes: bool) -> None:
    """As MLC writes those of its embeddings."""
    parameter = ParameterMetadata(name="w", shape=("vocab_size", 576), dtype="float32")
    assert parameter.takes(shape, dtype) == takes
