"""`mlc_llm package`: libraries with shadowAttn for an app.

MLC's command reads a package configuration; it is given one in which every model names its library,
compiled by us or named by the user and checked.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config.documents import read_json_object
from ..errors import ConfigError
from ..plan import Plan
from ..runtime.library_file import require_library
from .installation import require_known_layout, swapped
from .library_cache import LibraryRequest, ready_library
from .report import CompileReport


def package_with(argv: Sequence[str], plan: Plan | None) -> tuple[CompileReport, ...]:
    """Run `mlc_llm package` on `argv`, what follows the subcommand; the plan must fit every model
    in the package. Raises `ConfigError` for a malformed configuration, `LibraryError` for a named
    library compiled otherwise, and like `compile_with`."""
    require_known_layout("package")
    command = importlib.import_module("mlc_llm.cli.package")
    original = command.package
    reports: list[CompileReport] = []

    def package(**arguments: Any) -> None:
        path = Path(arguments["package_config_path"])
        config = with_libraries(path, plan, reports)
        with tempfile.TemporaryDirectory() as folder:
            changed = Path(folder) / path.name
            changed.write_text(json.dumps(config, indent=2), encoding="utf-8")
            original(**{**arguments, "package_config_path": changed})

    with swapped(command, package=package):
        command.main(list(argv))
    return tuple(reports)


def with_libraries(path: Path, plan: Plan | None, reports: list[CompileReport]) -> dict[str, Any]:
    """The configuration at `path` with a library for each of its models; what was compiled is
    added to `reports`."""
    config = read_json_object(path)
    models, device = config.get("model_list"), config.get("device")
    if not isinstance(models, list) or not isinstance(device, str):
        raise ConfigError(f"{path}: expected a list 'model_list' and a string 'device'")
    libraries = dict(config.get("model_lib_path_for_prepare_libs") or {})
    entries = []
    for entry in models:
        if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
            raise ConfigError(f"{path}: model_list: expected objects with a string 'model'")
        name = entry.get("model_lib")
        if name in libraries:
            require_library(Path(libraries[name]), plan)
        else:
            overrides = entry.get("overrides") or {}
            request = LibraryRequest(
                model=entry["model"],
                device=device,
                overrides=overrides,
                opt=overrides.get("opt"),
                suffix=".tar",
                system_lib_prefix=name,
            )
            ready = ready_library(request, plan)
            reports.append(ready.report)
            name = ready.system_lib_prefix
            libraries[name] = str(ready.path)
        entries.append({**entry, "model_lib": name})
    return {**config, "model_list": entries, "model_lib_path_for_prepare_libs": libraries}
