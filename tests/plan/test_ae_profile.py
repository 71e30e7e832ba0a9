"""The text format of profiles: byte for byte through our document, and distrusted on the way in."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.errors import PlanError
from shadowattn_tvm.plan import load_ratios, save_ratios
from shadowattn_tvm.plan.ae_profile import ae_profile_text, format_ae_profile, read_ae_profile

PUBLISHED_SHAPE = (28, 12)
"""Layers and heads of the published Qwen2-1.5B profile."""

spellings = st.floats(0.0, 1.0).flatmap(
    lambda x: st.sampled_from([repr(x), f"{x:.20f}", f"{x:.5e}", f"{round(x, 2):.2f}", "1", "0"])
)


def round_trip(content: bytes, folder: Path) -> bytes:
    """Imported, saved, loaded and exported."""
    (folder / "profile.txt").write_bytes(content)
    save_ratios(read_ae_profile(folder / "profile.txt"), folder / "ratios.json")
    return ae_profile_text(load_ratios(folder / "ratios.json")).encode()


def test_a_profile_like_the_published_one_leaves_as_it_came(tmp_path: Path) -> None:
    # Two dense layers, then numbers with 15 to 17 significant digits, as Python writes them.
    layers, heads = PUBLISHED_SHAPE
    draw = random.Random(1508)
    rows = [
        [1.0 if layer < 2 else draw.uniform(0.128, 0.172) for _ in range(heads)]
        for layer in range(layers)
    ]
    content = format_ae_profile(rows).encode()
    assert content.startswith(b"1.0 1.0 ")
    assert content.endswith(b" \n")
    assert round_trip(content, tmp_path) == content
    profile = load_ratios(tmp_path / "ratios.json")
    assert (profile.num_layers, profile.num_q_heads) == PUBLISHED_SHAPE
    assert [list(row) for row in profile.keep_ratios] == rows
    assert profile.spellings is None  # the shortest spelling says it all


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(spellings, min_size=n, max_size=n),
                                                    min_size=1, max_size=4)))  # fmt: skip
@settings(deadline=None, max_examples=100)
def test_any_spelling_leaves_as_it_came(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    content = format_ae_profile(rows).encode()
    assert round_trip(content, tmp_path_factory.mktemp("profile")) == content


def test_the_layout_by_hand() -> None:
    assert format_ae_profile([[1.0, 0.2], [0.125, "0.750"]]) == "1.0 0.2 \n0.125 0.750 \n"


def test_another_layout_leaves_in_the_formats_own(tmp_path: Path) -> None:
    assert round_trip(b"1.0 0.20\r\n0.125\t0.75", tmp_path) == b"1.0 0.20 \n0.125 0.75 \n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: expected a number a head, got an empty line"),
        (b"1.0 \n\n0.5 \n", "line 2: expected a number a head, got an empty line"),
        (b"1.0 0.5 \n0.5 \n", "line 2: expected 2 numbers as in line 1, got 1"),
        (b"1.0 0.5 \n0.5 x \n", "line 2, column 5: expected a decimal number .* got 'x'"),
        (b"1.0 nan \n", "line 1, column 5: .* got 'nan'"),
        (b"1.0 inf \n", "line 1, column 5: .* got 'inf'"),
        (b"1.0 1.1 \n", "line 1, column 5: .* between 0 and 1 .* got '1.1'"),
        (b"-0.1 \n", "line 1, column 1: .* got '-0.1'"),
        (b"0.1\x00 \n", "line 1, column 1"),
        (b"0." + b"1" * 5000, "of at most 64 characters, got '0.1111"),
        (b"\xff\xfe", "expected text"),
        (b"0.5 " * (1 << 20) + b"\n", r"at most \d+ bytes, got more"),
    ],
)
def test_what_is_no_profile_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "profile.txt").write_bytes(content)
    with pytest.raises(PlanError, match=message):
        read_ae_profile(tmp_path / "profile.txt")


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(PlanError, match="got more"):
        read_ae_profile(Path("/dev/zero"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"can't read .*none\.txt: No such file"):
        read_ae_profile(tmp_path / "none.txt")
