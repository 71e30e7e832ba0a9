"""What the files of `bench prefill` and `bench decode` say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ..evaluate.document import Count, FiniteFloat, Fraction, TaskResult
from .document import Bench, Row

ModelContenderName = Literal["dense", "shadow", "torch", "llama_cpp"]

NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Agreement(TaskResult):
    """A contender's next-token distribution beside the dense library's: the KL divergence of the
    one from the other, and whether both have the same likeliest token."""

    kl_nats: NonNegative
    same_token: bool


class ModelRow(TaskResult):
    """One contender at one length; the fields that all of these benchmarks share.

    `weights`: the format its weights are in, or were in before they were made float32. `plan`:
    whose keys shadowAttn computes exactly, where there is one; `past_fraction` is the part of
    the past that the prompt's prefill computes exactly. `checked`: its results agree with the
    dense library's (for `dense`: with torch's), which isn't asked of llama.cpp where the
    model's weights were rounded anew and are no longer the file's; `agreement` is with the
    dense library at the worst of all rounds, null for itself. `loaded_memory_bytes` and
    `peak_memory_bytes` are the resident set of the contender's process, its interpreter and
    libraries included: once the model was loaded, and the largest since; null where the system
    doesn't tell.
    """

    contender: ModelContenderName
    weights: str
    threads: PositiveInt
    plan: str | None
    past_fraction: Fraction
    rounds: PositiveInt
    checked: bool
    agreement: Agreement | None
    loaded_memory_bytes: PositiveInt | None
    peak_memory_bytes: PositiveInt | None


class PrefillRow(ModelRow):
    """`ttft_ms`: from the prompt's tokens to the first token of the answer, the median; `spread_ms`
    is the distance of the quartiles, null of a single time. `prefill_chunk`: of compiled libraries,
    in tokens. `kv_cache_bytes`: the pages of the prompt; `pilot_workspace_bytes`: what the pilot
    and the lists need beside them at the last chunk, for one layer at a time; both of compiled
    libraries."""

    prompt_tokens: PositiveInt
    prefill_chunk: PositiveInt | None
    ttft_ms: PositiveFloat
    spread_ms: FiniteFloat | None
    kv_cache_bytes: PositiveInt | None
    pilot_workspace_bytes: Count | None


class DecodeRow(ModelRow):
    """`tokens_per_second`: of `tokens` tokens appended one by one to a prompt of `context`, the
    median; `spread` is the distance of the quartiles, null of a single round."""

    context: PositiveInt
    tokens: PositiveInt
    tokens_per_second: PositiveFloat
    spread: FiniteFloat | None


class SkippedContender(TaskResult):
    """One that wasn't timed, and why."""

    contender: ModelContenderName
    reason: str


class ModelBench(Bench[Row]):
    """What both files have in common. `model`: the directory's name, and the hash of its weights.
    `text`: where the prompts are from."""

    model: str
    weight_hash: str
    text: Annotated[tuple[str, ...], Field(strict=False)]
    skipped: Annotated[tuple[SkippedContender, ...], Field(strict=False)]


class PrefillBench(ModelBench[PrefillRow]):
    """`shadowattn bench prefill --json`."""


class DecodeBench(ModelBench[DecodeRow]):
    """`shadowattn bench decode --json`."""
