"""Is this library the one the user's plan asks for?"""

from __future__ import annotations

from pathlib import Path

from ..errors import LibraryError
from ..plan import Plan, plan_hash
from .library_metadata import LibraryMetadata


def require_plan(metadata: LibraryMetadata, plan: Plan | None, library_path: Path) -> None:
    """Raise `LibraryError` unless the library was compiled with `plan` (None: without one)."""
    built_with = None if metadata.shadow_attn is None else metadata.shadow_attn.plan_hash
    wanted = None if plan is None else plan_hash(plan)
    if built_with != wanted:
        raise LibraryError(
            f"the library {library_path} was compiled {_with(built_with)}, but --shadow-attn asks "
            f"for one compiled {_with(wanted)}; compile it again with that plan, or leave "
            "--model-lib out and it is compiled for you"
        )


def _with(digest: str | None) -> str:
    return "without shadowAttn" if digest is None else f"with the plan {digest[:12]}"
