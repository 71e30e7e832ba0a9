"""The GGUF parser: the answers of the `gguf` package's reader on good files, a clear refusal on bad
ones, whatever length or offset is wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from shadowattn_tvm.errors import WeightsError
from shadowattn_tvm.weights.gguf_file import open_gguf

from .tiny import Tiny, write_gguf

MODEL = Tiny()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    kind = gguf.GGMLQuantizationType.Q8_0
    return write_gguf(path, MODEL, MODEL.weights(), matrix_type=kind)


def test_agrees_with_the_reference_reader(good: Path) -> None:
    reference = gguf.GGUFReader(good)
    file = open_gguf(good)
    expected = {k: f.contents() for k, f in reference.fields.items() if not k.startswith("GGUF.")}
    assert file.metadata == expected
    assert list(file.tensors) == [tensor.name for tensor in reference.tensors]
    for tensor in reference.tensors:
        ours = file.tensors[tensor.name]
        assert ours.shape == tuple(reversed(tensor.shape.tolist()))
        assert ours.type == tensor.tensor_type
        assert ours.data.tobytes() == tensor.data.tobytes()


def test_rows_are_those_of_the_whole(good: Path) -> None:
    tensor = open_gguf(good).tensors["blk.1.ffn_down.weight"]
    whole = gguf.quants.dequantize(tensor.data, tensor.type)
    np.testing.assert_array_equal(tensor.rows(10, 37), whole[10:37])
    assert tensor.rows(0, 1).dtype == np.float32
    vector = open_gguf(good).tensors["output_norm.weight"]
    np.testing.assert_array_equal(vector.rows(3, 9), MODEL.weights()["model.norm.weight"][3:9])


def test_every_truncation_is_noticed(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in [*range(0, 2000, 13), *range(2000, len(content), 3001), len(content) - 40]:
        cut.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            open_gguf(cut)


def header(num_tensors: int = 0, num_keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys)


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def key_value(key: bytes, type_id: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", type_id) + value


def tensor(
    name: bytes = b"w", shape: tuple[int, ...] = (32,), type_id: int = 0, offset: int = 0
) -> bytes:
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + sizes + struct.pack("<IQ", type_id, offset)


DATA = bytes(4096)
HUGE = 1 << 62

BAD: dict[str, tuple[bytes, str]] = {
    "other contents": (b"PK\x03\x04" + DATA, "expected a GGUF file"),
    "an old version": (header(version=1) + DATA, "version 2 or 3, got 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "got 50331648"),
    "absurdly many keys": (header(num_keys=HUGE) + DATA, "more than the file can hold"),
    "absurdly many tensors": (header(num_tensors=HUGE) + DATA, "more than the file can hold"),
    "an absurd key": (header(num_keys=1) + text(b"k", HUGE) + DATA, "at most 65536 bytes"),
    "an absurd string": (
        header(num_keys=1) + key_value(b"k", 8, text(b"", HUGE)) + DATA,
        "string of at most",
    ),
    "an absurd array": (
        header(num_keys=1) + key_value(b"k", 9, struct.pack("<IQ", 4, HUGE)) + DATA,
        "more than the file can hold",
    ),
    "a long array": (
        header(num_keys=1) + key_value(b"k", 9, struct.pack("<IQ", 12, 4000)) + DATA,
        "expected 32000 more bytes",
    ),
    "arrays in arrays": (
        header(num_keys=1) + key_value(b"k", 9, struct.pack("<IQ", 9, 1)) + DATA,
        "unknown array item type 9",
    ),
    "an unknown type": (header(num_keys=1) + key_value(b"k", 77, b"") + DATA, "value type 77"),
    "not UTF-8": (header(num_keys=1) + key_value(b"\xff\xfe", 0, b"\0") + DATA, "UTF-8"),
    "a key twice": (
        header(num_keys=2) + key_value(b"k", 0, b"\0") * 2 + DATA,
        "every metadata key once, got 'k' twice",
    ),
    "a strange alignment": (
        header(num_keys=1) + key_value(b"general.alignment", 4, struct.pack("<I", 24)) + DATA,
        "power of two, got 24",
    ),
    "no alignment": (
        header(num_keys=1) + key_value(b"general.alignment", 4, struct.pack("<I", 0)) + DATA,
        "power of two, got 0",
    ),
    "a tensor twice": (header(2) + tensor() * 2 + DATA, "every tensor once, got 'w' twice"),
    "no dimensions": (header(1) + tensor(shape=()) + DATA, "1 to 4 dimensions, got 0"),
    "many dimensions": (header(1) + tensor(shape=(1,) * 9) + DATA, "1 to 4 dimensions, got 9"),
    "an empty tensor": (header(1) + tensor(shape=(32, 0)) + DATA, "positive sizes"),
    "a broken block": (header(1) + tensor(shape=(33,), type_id=8) + DATA, "multiple of 32 Q8_0"),
    "an unknown element type": (header(1) + tensor(type_id=99) + DATA, "element type 99"),
    "an absurd tensor": (header(1) + tensor(shape=(HUGE, HUGE)) + DATA, "truncated or damaged"),
    "data beyond the end": (header(1) + tensor(offset=HUGE) + DATA, "truncated or damaged"),
    "an empty file": (b"", "can't read"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(case: str, tmp_path: Path) -> None:
    content, message = BAD[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        open_gguf(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_the_bad_files_are_bad_for_their_reason_only(tmp_path: Path) -> None:
    """What the cases above are made of parses when nothing is wrong with it."""
    path = tmp_path / "good.gguf"
    numbers = struct.pack("<IQ3I", 4, 3, 7, 8, 9)
    keys = key_value(b"a", 8, text(b"x")) + key_value(b"b", 9, numbers)
    path.write_bytes(header(1, 2) + keys + tensor(shape=(32, 2)) + DATA)
    file = open_gguf(path)
    assert file.metadata == {"a": "x", "b": [7, 8, 9]}
    assert file.tensors["w"].shape == (2, 32)


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: None])
def test_no_file_is_a_clear_refusal(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    make(path)
    with pytest.raises(WeightsError, match="can't read"):
        open_gguf(path)


def test_an_element_type_nobody_dequantizes(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(header(1) + tensor(type_id=gguf.GGMLQuantizationType.I32) + DATA)
    with pytest.raises(WeightsError, match="tensor w: element type I32 can't be dequantized"):
        open_gguf(path).tensors["w"].rows(0, 32)
