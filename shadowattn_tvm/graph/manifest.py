"""What a bank says of itself: `manifest.json`, enough to find a graph and to call it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..plan.settings import StrictDocument

BANK_ABI: Literal["shadowattn-pilot-1"] = "shadowattn-pilot-1"
"""The calling convention, see docs/hexagon.md: `int graph(queries, keys, heads, lengths, result,
workspace)`, pointers to 128-byte aligned memory, 0 for success."""

NonNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$")]
"""Of a file in the bank's own folder."""

HeadScales = Annotated[tuple[NonNegative, NonNegative, NonNegative], Field(strict=False)]
"""Multiplier, shift, step."""


class BankFile(StrictDocument):
    """A file of the bank."""

    name: FileName
    sha256: Sha256
    size_bytes: Positive


class BankGraph(StrictDocument):
    """One graph: see `PilotGraphSpec` and `PilotGraph`.

    Attributes
    ----------
    index : its number, by which the header's table and the FastRPC interface know it.
    list_rows : rows of a head that vote on one list, in the order they are given.
    lists : rows of importances of a unit; 0 where the result is scores.
    list_capacity : keys that a list has room for; 0 where keys are selected elsewhere.
    code_bytes : machine code and constants, without symbols.
    """

    index: NonNegative
    symbol: Annotated[str, Field(pattern="^[a-z0-9_]+$")]
    q_bucket: NonNegative | None
    k_bucket: NonNegative | None
    units: Positive
    heads: Positive
    queries: Positive
    keys: Positive
    list_rows: Positive
    lists: NonNegative
    list_capacity: NonNegative = 0
    result_dtype: Literal["int8", "int16", "int32"]
    result_bytes: Positive
    workspace_bytes: NonNegative
    code_bytes: Positive
    object: BankFile


class BucketScales(StrictDocument):
    """The constants in a bucket's graphs, `[layer * query heads + head]`."""

    q_bucket: NonNegative
    k_bucket: NonNegative
    scales: Annotated[tuple[HeadScales, ...], Field(strict=False)]


class BankManifest(StrictDocument):
    """A bank of graphs.

    Attributes
    ----------
    architecture : of the DSP, as `v75`.
    library : all graphs in one shared object.
    """

    schema_version: Literal[1] = 1
    abi: Literal["shadowattn-pilot-1"] = BANK_ABI
    model_name: str
    model_fingerprint: str
    plan_hash: Sha256
    architecture: Annotated[str, Field(pattern="^v[0-9]+$")]
    num_layers: Positive
    num_q_heads: Positive
    head_dim: Positive
    score_bits: Literal[8, 9, 32]
    buckets_per_axis: Positive
    library: BankFile
    graphs: Annotated[tuple[BankGraph, ...], Field(strict=False)]
    buckets: Annotated[tuple[BucketScales, ...], Field(strict=False)]
