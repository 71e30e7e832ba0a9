"""Where things live, by environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.config import cache_dir, configs_dir, paths
from shadowattn_tvm.config.paths import tuning_logs_dir
from shadowattn_tvm.errors import ConfigError


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SHADOWATTN_CACHE": "/big/cache", "XDG_CACHE_HOME": "/xdg"}, "/big/cache"),
        ({"SHADOWATTN_CACHE": "~/models"}, "/home/me/models"),
        ({"SHADOWATTN_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/shadowattn"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/shadowattn"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/shadowattn"),
        ({}, "/home/me/.cache/shadowattn"),
    ],
)
def test_the_cache(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SHADOWATTN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)


def test_the_configs_of_a_checkout_and_of_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (configs_dir() / "models" / "smollm2-135m.toml").is_file()
    module = tmp_path / "shadowattn_tvm" / "config" / "paths.py"
    monkeypatch.setattr(paths, "__file__", str(module))
    with pytest.raises(ConfigError, match="install shadowattn-tvm again"):
        configs_dir()
    (tmp_path / "configs").mkdir()
    assert configs_dir() == tmp_path / "configs"
    (tmp_path / "shadowattn_tvm" / "_configs").mkdir(parents=True)
    assert configs_dir() == tmp_path / "shadowattn_tvm" / "_configs"


def test_the_tuning_logs_are_found_like_the_configs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (tuning_logs_dir() / "README.md").is_file()
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "shadowattn_tvm" / "config" / "paths.py"))
    with pytest.raises(ConfigError, match="the tuning logs are missing"):
        tuning_logs_dir()
    (tmp_path / "tuning_logs").mkdir()
    assert tuning_logs_dir() == tmp_path / "tuning_logs"
