"""No mlc_llm, a wrong one, one of another layout: one message each, nothing compiled."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import tvm

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.mlc import SOURCE_VARIABLE, TESTED, is_installed
from shadowattn_tvm.mlc.installation import import_mlc_llm, require_known_layout, swapped


@pytest.fixture
def without_mlc_llm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that neither has nor had an mlc_llm; the folder is first on its path."""
    monkeypatch.delenv(SOURCE_VARIABLE, raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "mlc_llm"]:
        monkeypatch.delitem(sys.modules, name)
    elsewhere = [p for p in sys.path if not (Path(p) / "mlc_llm").is_dir()]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *elsewhere])
    importlib.invalidate_caches()
    return tmp_path


def test_no_mlc_llm(without_mlc_llm: Path) -> None:
    assert not is_installed()
    with pytest.raises(ConfigError, match="mlc_llm is not installed") as raised:
        import_mlc_llm()
    assert TESTED in str(raised.value)


def test_a_folder_that_is_no_checkout(
    without_mlc_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SOURCE_VARIABLE, str(without_mlc_llm))
    assert is_installed()
    with pytest.raises(ConfigError, match="expected a checkout of mlc-llm"):
        import_mlc_llm()


def test_an_empty_placeholder(without_mlc_llm: Path) -> None:
    """What PyPI has under the name."""
    (without_mlc_llm / "mlc_llm").mkdir()
    (without_mlc_llm / "mlc_llm" / "__init__.py").write_text("")
    import_mlc_llm()
    with pytest.raises(ConfigError, match=r"mlc_llm\.cli\.compile can't be imported"):
        require_known_layout()


def test_a_package_that_fails(without_mlc_llm: Path) -> None:
    (without_mlc_llm / "mlc_llm").mkdir()
    (without_mlc_llm / "mlc_llm" / "__init__.py").write_text("raise RuntimeError('no library')")
    with pytest.raises(ConfigError, match="can't import mlc_llm: RuntimeError: no library"):
        import_mlc_llm()


def test_swapped_names_come_back() -> None:
    module = importlib.import_module("tests.mlc.test_installation")
    original = module.swapped
    with pytest.raises(KeyError), swapped(module, swapped=1):  # noqa: PT012
        assert module.swapped == 1
        raise KeyError
    assert module.swapped is original


@pytest.mark.mlc
class TestRealSource:
    def test_is_known(self, mlc_llm: None) -> None:
        for subcommand in ("compile", "chat", "serve", "package"):
            require_known_layout(subcommand)

    def test_another_tvm(self, mlc_llm: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tvm, "__version__", "0.27.0")
        with pytest.raises(ConfigError, match=r"TVM is 0\.27\.0, expected 0\.26\.0") as raised:
            require_known_layout()
        assert TESTED in str(raised.value)

    def test_a_pipeline_that_looks_nothing_up(
        self, mlc_llm: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pipeline = importlib.import_module("mlc_llm.compiler_pass.pipeline")
        monkeypatch.setattr(pipeline, "_mlc_llm_pipeline", lambda target: target)
        with pytest.raises(ConfigError, match="uses no DispatchKVCacheCreation"):
            require_known_layout()

    def test_a_compile_of_other_arguments(
        self, mlc_llm: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        interface = importlib.import_module("mlc_llm.interface.compile")
        monkeypatch.setattr(interface, "compile", lambda config: config)
        with pytest.raises(ConfigError, match="takes no quantization, model_type, target"):
            require_known_layout()
