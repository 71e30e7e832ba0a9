"""The rest of the past, what is on no list, as the attention of a list meets it: on every machine
one key and one value, means of a sample, and how often they count."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script import tirx as T

from .attention.page_table import KV_PLANES
from .constants import REST_STRIDE
from .simd.vector import Expr
from .spec import ShadowSpec


@dataclass(frozen=True)
class HeadRest:
    """One KV head's rest, for one length of lists.

    Attributes
    ----------
    means : (any, D) float32. key, value : the rows of the mean key and the mean value. left_out :
        keys on no list; 0 = there is no rest, and the means are not to be read.
    """

    means: T.Buffer
    key: Expr
    value: Expr
    left_out: Expr


def rest_of_head(
    spec: ShadowSpec, means: T.Buffer, key: Expr, num_keys: Expr, keep: Expr
) -> HeadRest | None:
    """What lists of `keep` of `num_keys` keys leave out; None where the plan drops the rest.

    means : (2 * heads, D), mean keys and then mean values; key : the row of the former.
    """
    if spec.rest == "dropped":
        return None
    has_sample = num_keys > REST_STRIDE // 2
    left_out = T.bind(T.if_then_else(has_sample, num_keys - keep, 0))
    return HeadRest(means, key, means.shape[0] // KV_PLANES + key, left_out)
