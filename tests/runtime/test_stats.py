"""Figures from events with known times, and the file they are written to."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from shadowattn_tvm.errors import OutputError
from shadowattn_tvm.runtime.generate import Prefill, TokenEvent
from shadowattn_tvm.runtime.pairs import PairCounts
from shadowattn_tvm.runtime.stats import (
    ChatRecord,
    make_record,
    summary,
    write_record,
)

PREFILL = Prefill(
    reused_tokens=10,
    new_tokens=40,
    duration_ms=200.0,
    pairs=PairCounts(past_kept=20, past_total=100, chunk_total=60),
)
EVENTS = [
    TokenEvent(7, 0, "a", 210.0, PREFILL, None),
    TokenEvent(8, 1, "b", 260.0, PREFILL, None),
    TokenEvent(9, 2, "", 310.0, PREFILL, "stop"),
]


def test_the_figures_follow_from_the_events():
    record = make_record([1] * 50, EVENTS)
    stats = record.stats
    assert stats.ttft_ms == 210.0
    assert stats.prefill_tokens_per_s == pytest.approx(40 / 0.2)
    assert stats.decode_tokens_per_s == pytest.approx(2 / 0.1)
    assert stats.kept_fraction == 0.2
    assert stats.total_kept_fraction == 0.5
    assert stats.reused_tokens == 10
    assert (record.text, record.output_token_ids) == ("ab", (7, 8, 9))
    assert (record.finish_reason, len(record.prompt_token_ids)) == ("stop", 50)
    assert "decode: 20.0 tok/s" in summary(record)
    assert "kept: 20.0% of the past, 50.0% of all pairs" in summary(record)


def test_one_token_has_no_decode_speed():
    record = make_record([1], EVENTS[:1])
    assert record.stats.decode_tokens_per_s is None
    assert record.finish_reason == "interrupted"
    assert "decode: n/a" in summary(record)


def test_a_record_is_one_json_object_and_a_chat_holds_its_turns(tmp_path):
    record = make_record([1, 2], EVENTS)
    write_record(tmp_path / "one.json", record)
    one = json.loads((tmp_path / "one.json").read_text())
    assert one["prompt_token_ids"] == [1, 2]
    assert set(one["stats"]) >= {
        "ttft_ms",
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
        "kept_fraction",
        "total_kept_fraction",
        "peak_memory_bytes",
    }
    write_record(tmp_path / "chat.json", ChatRecord(turns=(record, record)))
    assert json.loads((tmp_path / "chat.json").read_text()) == {"turns": [one, one]}


def test_a_place_that_cannot_be_written_is_the_users_mistake(tmp_path):
    with pytest.raises(OutputError):
        write_record(tmp_path, make_record([1], EVENTS))
    assert list(tmp_path.iterdir()) == []


TOUCH_64_MIB = """
from shadowattn_tvm.runtime.stats import peak_memory_bytes
before = peak_memory_bytes()
block = b"x" * (64 << 20)
print(before, peak_memory_bytes())
"""


def test_peak_memory_is_in_bytes_and_this_process_own():
    launcher = b"x" * (512 << 20)  # must not count for the process launched
    run = subprocess.run([sys.executable, "-c", TOUCH_64_MIB], capture_output=True, check=True)
    before, after = map(int, run.stdout.split())
    assert after - before >= 64 << 20
    assert after < len(launcher)
