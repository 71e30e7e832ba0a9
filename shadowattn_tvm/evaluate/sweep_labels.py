"""Names of settings in sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ..plan import Pilot, Sharing

SHARINGS: Mapping[str, Sharing] = {
    "per query and head": Sharing(),
    "per head, 8 queries": Sharing(query_block=8),
    "per head, 32 queries": Sharing(query_block=32),
    "per head, 128 queries": Sharing(query_block=128),
    "per group, 8 queries": Sharing(gqa_group=True, query_block=8),
    "per group, 32 queries": Sharing(gqa_group=True, query_block=32),
    "per group, 128 queries": Sharing(gqa_group=True, query_block=128),
}

VOTING_BLOCKS: tuple[Literal[16, 32], ...] = (16, 32)
QUERY_STRIDES: tuple[Literal[1, 2, 4, 8], ...] = (1, 2, 4, 8)


def bucket_label(side: int) -> str:
    """Buckets of a head: `side` scales for Q and as many for K."""
    return "1 bucket" if side == 1 else f"{side * side} buckets"


def sharing_label(sharing: Sharing) -> str:
    """Whose rows share a list."""
    for label, known in SHARINGS.items():
        if known == sharing:
            return label
    owner = "group" if sharing.gqa_group else "head"
    return f"per {owner}, {voters_label(sharing)}"


def voters_label(sharing: Sharing) -> str:
    """How many of a list's queries vote on it."""
    if sharing.query_stride == 1:
        return f"{sharing.query_block} queries"
    return f"{sharing.query_block // sharing.query_stride} of {sharing.query_block} queries"


def pilot_label(pilot: Pilot) -> str:
    """How an estimate is computed."""
    extras = [
        name
        for name, used in (("centred", pilot.center_keys), ("rotated", pilot.hadamard_rotation))
        if used
    ]
    return ", ".join([f"INT{pilot.bits}", f"INT{pilot.score_bits} scores", *extras])
