"""The ablation measurement as a document: strict, resumable, and tied to its inputs."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..config.documents import read_json_object, validated
from ..errors import WeightsError

_LARGEST_LOSS = 700.0
"""Nats; the exponential of more is no float64. A uniform guess costs ln(vocabulary), about 11."""

Nats = Annotated[float, Field(ge=0.0, le=_LARGEST_LOSS)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Loss(_Document):
    """Mean -ln p(next token) over all predictions, in nats, and its exponential."""

    mean: Nats
    perplexity: Annotated[float, Field(ge=1.0, allow_inf_nan=False)]

    @classmethod
    def of(cls, mean: float) -> Self:
        """Raises `WeightsError` for a loss that no sane model has."""
        if not 0.0 <= mean <= _LARGEST_LOSS:
            raise WeightsError(
                f"expected a mean loss between 0 and {_LARGEST_LOSS:g} nats, got {mean}; the "
                "weights look corrupt"
            )
        return cls(mean=mean, perplexity=math.exp(mean))


class AblationInputs(_Document):
    """Everything the measurement depends on.

    Attributes
    ----------
    model_fingerprint, weight_hash : the checkpoint, and its weights as quantized.
    documents_sha256 : of the texts the windows are from, in their order.
    windows_sha256 : of the windows' token ids as little-endian int64, row by row.
    """

    model_fingerprint: str
    weight_hash: str
    num_layers: Annotated[int, Field(ge=1)]
    num_q_heads: Annotated[int, Field(ge=1)]
    num_windows: Annotated[int, Field(ge=1)]
    window_tokens: Annotated[int, Field(ge=2)]
    documents_sha256: Annotated[tuple[Sha256, ...], Field(strict=False)]
    windows_sha256: Sha256

    @property
    def key(self) -> str:
        """SHA-256 (hex) of all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class LayerAblation(_Document):
    """One layer: the loss with it bypassed, and with each of its heads removed."""

    bypassed: Loss
    heads: Annotated[tuple[Loss, ...], Field(strict=False)]


class Ablation(_Document):
    """The measurement, complete when it has all layers; `layers` holds those done so far."""

    document: Literal["shadowattn-ablation"] = "shadowattn-ablation"
    schema_version: Literal[1] = 1
    inputs: AblationInputs
    baseline: Loss
    layers: Annotated[tuple[LayerAblation, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        if len(self.layers) > self.inputs.num_layers:
            raise ValueError(
                f"expected at most {self.inputs.num_layers} layers, got {len(self.layers)}"
            )
        for index, layer in enumerate(self.layers):
            if len(layer.heads) != self.inputs.num_q_heads:
                raise ValueError(
                    f"layers[{index}].heads: expected {self.inputs.num_q_heads}, got "
                    f"{len(layer.heads)}"
                )
        return self

    @property
    def complete(self) -> bool:
        return len(self.layers) == self.inputs.num_layers


def load_ablation(path: Path) -> Ablation:
    """Read a measurement. Raises `ConfigError` naming what is not as expected."""
    where = f"{path}: not an ablation measurement (delete it to measure again)"
    return validated(Ablation, read_json_object(path), where)
