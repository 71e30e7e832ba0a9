"""Names of settings in sweeps."""

from __future__ import annotations

from collections.abc import Mapping

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


def bucket_label(side: int) -> str:
    """Buckets of a head: `side` scales for Q and as many for K."""
    return "1 bucket" if side == 1 else f"{side * side} buckets"


def sharing_label(sharing: Sharing) -> str:
    """Whose rows share a list."""
    for label, known in SHARINGS.items():
        if known == sharing:
            return label
    owner = "group" if sharing.gqa_group else "head"
    return f"per {owner}, {sharing.query_block} queries"


def voters_label(query_block: int, fraction: float, *, same: bool = False) -> str:
    """How many of the queries of lists vote; `same`: of every head's."""
    if fraction == 1.0:
        return f"{query_block} queries, all vote"
    return f"{query_block} queries, {fraction:.0%} vote" + (" in every head" if same else "")


def pilot_label(pilot: Pilot) -> str:
    """How an estimate is computed."""
    extras = [
        name
        for name, used in (("centred", pilot.center_keys), ("rotated", pilot.hadamard_rotation))
        if used
    ]
    return ", ".join([f"INT{pilot.bits}", f"INT{pilot.score_bits} scores", *extras])
