from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.calibrate import PartialResults
from shadowattn_tvm.calibrate.resume import fingerprint_of
from shadowattn_tvm.errors import OutputError

MARK = fingerprint_of({"model": "a", "windows": [1, 2]})


def test_results_are_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "plan.json.partial"
    first = PartialResults(path, MARK)
    assert first.get("scales", 0) is None
    first.put("scales", 0, {"q": np.arange(6.0).reshape(2, 3), "k": np.array([1], np.int8)})
    first.put("scales", 10, {"q": np.zeros(1)})
    second = PartialResults(path, MARK)
    found = second.get("scales", 0)
    assert found is not None
    assert sorted(found) == ["k", "q"]
    np.testing.assert_array_equal(found["q"], np.arange(6.0).reshape(2, 3))
    assert found["k"].dtype == np.int8
    assert second.get("scales", 1) is None
    assert second.get("fisher", 0) is None
    second.discard()
    assert not path.exists()
    second.discard()


def test_results_of_something_else_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "partial"
    PartialResults(path, MARK).put("scales", 0, {"q": np.zeros(1)})
    other = fingerprint_of({"model": "b", "windows": [1, 2]})
    assert other != MARK
    assert PartialResults(path, other).get("scales", 0) is None


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off"])
def test_a_damaged_file_counts_for_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "partial"
    path.write_bytes(content)
    results = PartialResults(path, MARK)
    assert results.get("scales", 0) is None
    results.put("scales", 0, {"q": np.ones(2)})
    assert PartialResults(path, MARK).get("scales", 0) is not None


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "partial"
    mark = np.frombuffer(MARK.encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, fingerprint=mark, **{"scales/0/q": np.array([object()], dtype=object)})
    assert PartialResults(path, MARK).get("scales", 0) is None


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    results = PartialResults(tmp_path / "file" / "partial", MARK)
    with pytest.raises(OutputError, match="partial"):
        results.put("scales", 0, {"q": np.zeros(1)})
