"""The rest of the past as one key and one value, as the attention of a list begins with it."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script import tirx as T

from ..rest_sample import left_out
from .shadow_scratch import PilotInputs
from .vector import Expr


@dataclass(frozen=True)
class HeadRest:
    """One KV head's rest, for one length of lists.

    Attributes
    ----------
    rows : (any, D) float32. key, value : the rows of the mean key and the mean value. left_out :
        keys on no list; 0 = there is no rest, and the means are not to be read.
    """

    rows: T.Buffer
    key: Expr
    value: Expr
    left_out: Expr


def rest_of_head(
    inputs: PilotInputs, batch: Expr, sequence: Expr, kv_head: Expr, num_keys: Expr, keep: Expr
) -> HeadRest | None:
    """What lists of `keep` of a sequence's keys leave out; None where the plan drops the rest."""
    if inputs.spec.rest == "dropped":
        return None
    hkv = inputs.spec.attention.num_kv_heads
    key = sequence * hkv + kv_head
    return HeadRest(inputs.rest_means, key, batch * hkv + key, left_out(num_keys, keep))
