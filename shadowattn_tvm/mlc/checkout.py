"""A checkout of mlc-llm's source, used without its C++ library: everything works but its engine.

What the library would bring, and mlc_llm's Python wants while it converts and compiles, is supplied
here. All of it is state of this process that others own: their switches, their modules.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi

from ..config.documents import read_json_object
from ..errors import ConfigError
from ..weights.tokenizer_info import detect_tokenizer_info

SOURCE_VARIABLE = "SHADOWATTN_MLC_LLM_SOURCE"
"""Environment variable that names the checkout."""


def use_checkout(folder: Path) -> None:
    """Make a checkout importable with the stock TVM. Raises `ConfigError` if it is none."""
    python = folder.expanduser().absolute() / "python"
    if not (python / "mlc_llm" / "__main__.py").is_file():
        raise ConfigError(
            f"{SOURCE_VARIABLE}: expected a checkout of mlc-llm, with python/mlc_llm in it, got "
            f"{folder}"
        )
    if str(python) not in sys.path:
        sys.path.insert(0, str(python))
    # MLC's own switch: don't load libmlc_llm.
    os.environ["SKIP_LOADING_MLCLLM_SO"] = "1"
    # Its Python classes stand for objects that this library would define.
    tvm_ffi.registry._SKIP_UNKNOWN_OBJECTS = True
    # The TVM in its source tree is newer: there a variable has both names.
    if not hasattr(tvm.relax.Var, "name_hint"):
        tvm.relax.Var.name_hint = property(lambda variable: variable.name)


def complete_checkout() -> None:
    """Supply what is missing, once mlc_llm is imported."""
    # It asks for devices in a child process, which would have to be prepared like this one.
    auto_device: Any = importlib.import_module("mlc_llm.support.auto_device")
    auto_device._device_exists = lambda device: bool(device.exist)
    # gen_config asks the library how the tokenizer's tokens become text.
    tokenizers: Any = importlib.import_module("mlc_llm.tokenizers._ffi_api")
    if not hasattr(tokenizers, "DetectTokenizerInfo"):
        tokenizers.DetectTokenizerInfo = _detect_tokenizer_info


def _detect_tokenizer_info(folder: str) -> str:
    """As JSON."""
    description = read_json_object(Path(folder) / "tokenizer.json")
    return detect_tokenizer_info(description).model_dump_json()
