"""Losses on disk: found again, apart by what they depend on, and never trusted when damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.evaluate.sweep_cache import SweepCache, digest_of


def test_what_was_put_is_found_by_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "losses.json"
    SweepCache(path).put("key", [1.25, 1e-17])
    assert SweepCache(path).get("key") == [1.25, 1e-17]
    assert SweepCache(path).get("other") is None


def test_without_a_file_it_is_kept_in_memory() -> None:
    cache = SweepCache(None)
    cache.put("key", [2.0])
    assert cache.get("key") == [2.0]


@pytest.mark.parametrize("content", ["", "{", "[1.0]", '{"key": 1.0}', '{"key": ["1"]}'])
def test_a_damaged_file_counts_for_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "losses.json"
    path.write_text(content)
    cache = SweepCache(path)
    assert cache.get("key") is None
    cache.put("key", [1.0])
    assert SweepCache(path).get("key") == [1.0]


def test_digests_tell_facts_apart() -> None:
    facts = [("a", 1), ("a", 1.0), ("a1",), (("a", 1),), ("a", (1, 2)), ("a", 1, 2)]
    assert len({digest_of(*fact) for fact in facts}) == len(facts)
    assert digest_of("a", 1) == digest_of("a", 1)
