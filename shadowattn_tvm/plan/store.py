"""Plans on disk: read with every mistake named, written atomically, identified by content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from ..config.atomic import write_text_atomically
from ..errors import PlanError
from .document import SCHEMA_VERSION, Plan

_MAX_PLAN_BYTES = 64 << 20  # 1,000 layers of 1,000 heads fit; anything longer is not a plan


def load_plan(path: Path) -> Plan:
    """Read and validate a plan file. Raises `PlanError` with the path to the offending value."""
    try:
        if path.stat().st_size > _MAX_PLAN_BYTES:
            raise PlanError(f"{path}: expected a plan of at most {_MAX_PLAN_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PlanError(
            f"no plan at {path}; make one with `shadowattn calibrate MODEL_DIR -o {path}`"
        ) from None
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: expected UTF-8 JSON, got {error}") from None
    except OSError as error:
        raise PlanError(f"can't read the plan {path}: {error.strerror}") from None
    return parse_plan(text, str(path))


def parse_plan(text: str, where: str) -> Plan:
    """Validate the text of a plan; `where` names it in error messages."""
    try:
        version = json.loads(text).get("schema_version")
    except (json.JSONDecodeError, AttributeError, RecursionError) as error:
        raise PlanError(f"{where}: expected a JSON object, got {error}") from None
    if version != SCHEMA_VERSION:
        raise PlanError(
            f"{where}: expected schema_version {SCHEMA_VERSION}, got {version!r}; "
            "calibrate again with this version of shadowattn"
        )
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in item['loc']) or 'plan'}: {item['msg']}, "
            f"got {str(item['input'])[:80]!r}"
            for item in error.errors()[:10]
        ]
        raise PlanError("\n".join([f"{where}: not a valid plan", *lines])) from None


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan atomically, readable in a diff: two-space indent, fields in document order."""
    write_text_atomically(path, plan.model_dump_json(indent=2) + "\n")


def plan_hash(plan: Plan) -> str:
    """SHA-256 (hex) of everything that changes the compiled code: provenance is left out, so
    calibrating again to the same numbers gives the same library."""
    content = plan.model_dump(mode="json", exclude={"provenance"})
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
