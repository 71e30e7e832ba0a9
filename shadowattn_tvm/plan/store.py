"""Plans on disk: read with every mistake named, written atomically, identified by content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from ..config.documents import describe_mistakes, read_json_object
from ..config.json_layout import write_document
from ..config.paths import configs_dir
from ..errors import PlanError
from .document import SCHEMA_VERSION, Plan

OFF = "off"
"""Where a plan is expected: none, dense attention."""

_FIELDS_ADDED = {"decode": "dense", "rest": "dropped", "query_stride": 1}
"""Of plans and their heads: fields that older plans don't have, and what those mean by it."""


def load_plan(path: Path) -> Plan:
    """Read and validate a plan file. Raises `PlanError` with the path to the offending value."""
    if not path.is_file():
        raise PlanError(
            f"no plan at {path}; make one with `shadowattn calibrate MODEL_DIR -o {path}`"
        )
    document = read_json_object(path, PlanError)
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise PlanError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, got {version!r}; "
            "calibrate again with this version of shadowattn"
        )
    try:
        return Plan.model_validate(document)
    except ValidationError as error:
        raise PlanError(describe_mistakes(error, f"{path}: not a valid plan")) from None


def find_plan(value: str) -> Plan | None:
    """What `--shadow-attn` and `--plan` name: a file, a shipped plan, or `off` (None).
    Raises `PlanError` naming the shipped plans."""
    if value == OFF:
        return None
    if Path(value).suffix == ".json" or Path(value).exists():
        return load_plan(Path(value))
    folder = configs_dir() / "plans"
    shipped = sorted(path.stem for path in folder.glob("*.json"))
    if value not in shipped:
        raise PlanError(
            f"no plan {value!r}: expected a .json file, one of the shipped plans "
            f"({', '.join(shipped)}), or '{OFF}'"
        )
    return load_plan(folder / f"{value}.json")


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan atomically, readable in a diff. Raises `OutputError`."""
    write_document(path, plan)


def plan_hash(plan: Plan) -> str:
    """SHA-256 (hex) of everything that changes the compiled code: provenance and measured costs are
    left out, so calibrating again to the same numbers gives the same library. So are
    fields that came later, where they say what was done before: older plans keep their hash."""
    content = plan.model_dump(mode="json", exclude={"provenance"}) | {"stage_costs": None}
    heads = [head for layer in content["layers"] for head in layer["heads"]]
    for part in (content, *heads):
        for field, before in _FIELDS_ADDED.items():
            if part.get(field) == before:
                del part[field]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
