"""Keep ratios by themselves: how a budget is spread over layers and heads, without scales.

The document between an allocation made elsewhere and a plan made here. `shadowattn plan
import-profile` writes one, `shadowattn calibrate --ratios` builds a plan around one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..config.documents import read_json_object, validated
from ..config.json_layout import write_document
from ..errors import PlanError
from .document import Fraction, Plan

RATIOS_DOCUMENT: Final = "shadowattn-ratios"
"""What tells this document from a plan."""

_SHA256 = r"^[0-9a-f]{64}$"

_DECIMAL = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

_MEAN_TOLERANCE = 1e-9
"""Sums of a few thousand numbers below 1, in any order, agree far better than this."""

KeepRatios = Annotated[
    tuple[
        Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)],
        ...,
    ],
    Field(strict=False, min_length=1),
]
"""`[layer][query head]`, each the part of the past that the head keeps, 0..1."""

Spellings = Annotated[
    tuple[
        Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(strict=False)],
        ...,
    ],
    Field(strict=False),
]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RatioSource(_Document):
    """The file the ratios were read from: its name and the SHA-256 (hex) of its bytes."""

    name: str
    sha256: Annotated[str, Field(pattern=_SHA256)]


class RatioProfile(_Document):
    """Keep ratios of every query head of a model.

    Attributes
    ----------
    ratio : their mean: the past fraction of a plan that used them as they are, for pasts long
        enough that k_min has no say.
    spellings : the decimal text of each ratio as it was read, where one differs from the shortest
        that means the same number (`0.20` for `0.2`); None where none does. It lets a profile
        leave as it came.
    """

    document: Literal["shadowattn-ratios"] = RATIOS_DOCUMENT
    schema_version: Literal[1] = 1
    ratio: Fraction
    source: RatioSource
    keep_ratios: KeepRatios
    spellings: Spellings | None = None

    @model_validator(mode="after")
    def _is_a_grid(self) -> Self:
        width = len(self.keep_ratios[0])
        for layer, row in enumerate(self.keep_ratios):
            if len(row) != width:
                raise ValueError(
                    f"keep_ratios[{layer}]: expected {width} heads as in layer 0, got {len(row)}"
                )
        mean = mean_ratio(self.keep_ratios)
        if abs(mean - self.ratio) > _MEAN_TOLERANCE:
            raise ValueError(f"ratio: expected the mean of keep_ratios, {mean}, got {self.ratio}")
        if self.spellings is not None:
            self._check_spellings(self.spellings)
        return self

    def _check_spellings(self, spellings: tuple[tuple[str, ...], ...]) -> None:
        if [len(row) for row in spellings] != [len(row) for row in self.keep_ratios]:
            raise ValueError("spellings: expected the shape of keep_ratios")
        for layer, row in enumerate(spellings):
            for head, text in enumerate(row):
                want = self.keep_ratios[layer][head]
                if parse_ratio(text) != want:
                    raise ValueError(f"spellings[{layer}][{head}]: expected {want}, got {text!r}")

    @property
    def num_layers(self) -> int:
        return len(self.keep_ratios)

    @property
    def num_q_heads(self) -> int:
        return len(self.keep_ratios[0])

    @property
    def dense_layers(self) -> tuple[int, ...]:
        """The layers whose heads all keep everything."""
        return tuple(i for i, row in enumerate(self.keep_ratios) if min(row) == 1.0)

    def require_shape(self, num_layers: int, num_q_heads: int) -> None:
        """Raise `PlanError` unless the ratios are for a model of this many layers and heads."""
        if (self.num_layers, self.num_q_heads) != (num_layers, num_q_heads):
            raise PlanError(
                f"the ratios of {self.source.name} are for another model: expected {num_layers} "
                f"layers of {num_q_heads} query heads, got {self.num_layers} of "
                f"{self.num_q_heads}; use a profile made for this model"
            )


def mean_ratio(keep_ratios: tuple[tuple[float, ...], ...]) -> float:
    """The mean over all layers and heads."""
    flat = [ratio for row in keep_ratios for ratio in row]
    return min(sum(flat) / len(flat), 1.0)  # rounding may step over 1


def parse_ratio(text: str) -> float | None:
    """The number a plain decimal text means, if it is one between 0 and 1, else None.

    Stricter than `float`: ASCII digits, one point, an exponent; no sign, underscore, nan or inf.
    """
    if _DECIMAL.fullmatch(text) is None:
        return None
    value = float(text)
    return value if 0.0 <= value <= 1.0 else None


def load_ratios(path: Path) -> RatioProfile:
    """Read and validate a ratios file. Raises `PlanError` with the path to the offending value."""
    if not path.is_file():
        raise PlanError(
            f"no ratios at {path}; make them with `shadowattn plan import-profile FILE -o {path}`"
        )
    return validated_ratios(read_json_object(path, PlanError), path)


def validated_ratios(document: dict[str, Any], path: Path) -> RatioProfile:
    """A ratios file's JSON object as the document. Raises `PlanError` naming what is wrong."""
    if document.get("document") != RATIOS_DOCUMENT:
        raise PlanError(
            f"{path}: expected a ratios file (document: {RATIOS_DOCUMENT!r}), got "
            f"document: {document.get('document')!r}; make one with `shadowattn plan "
            "import-profile`"
        )
    return validated(RatioProfile, document, f"{path}: not valid ratios", PlanError)


def save_ratios(profile: RatioProfile, path: Path) -> None:
    """Write a ratios file atomically. Raises `OutputError`."""
    write_document(path, profile)


def plan_keep_ratios(plan: Plan) -> tuple[tuple[float, ...], ...]:
    """`[layer][query head]` of a plan as it runs: 1 in dense layers."""
    return tuple(
        tuple(1.0 if layer.dense else head.keep_ratio for head in layer.heads)
        for layer in plan.layers
    )
