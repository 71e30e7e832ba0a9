"""The methods of `shadowattn calibrate`, and what each takes by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..corpora import Document
from ..errors import ConfigError
from ..plan.ratios import RatioProfile, load_ratios

if TYPE_CHECKING:
    from ..calibrate import Method, MethodName

_DEFAULT_RATIO = 0.2
"""The paper's."""


@dataclass(frozen=True)
class MethodInputs:
    """What only some methods take: the documents, and how many short windows of them to ablate."""

    documents: Sequence[Document]
    ablation_windows: int


@dataclass(frozen=True)
class MethodChoice:
    """One way to choose keep ratios.

    Attributes
    ----------
    name : as the plan records it.
    load : imports and returns the method; torch is not needed before.
    dense_layers, num_windows : defaults.
    """

    name: MethodName
    load: Callable[[MethodInputs], Method]
    dense_layers: tuple[int, ...] = ()
    num_windows: int = 8


def _uniform(inputs: MethodInputs) -> Method:
    del inputs
    from ..calibrate import uniform_ratios

    return uniform_ratios


def _fisher(inputs: MethodInputs) -> Method:
    del inputs
    from ..calibrate import fisher_ratios

    return fisher_ratios


def _paper(inputs: MethodInputs) -> Method:
    from ..calibrate.importance_methods import AblationSource, paper_method

    return paper_method(AblationSource(inputs.documents, num_windows=inputs.ablation_windows))


def _ae(inputs: MethodInputs) -> Method:
    from ..calibrate.importance_methods import AblationSource, ae_method

    return ae_method(AblationSource(inputs.documents, num_windows=inputs.ablation_windows))


METHODS: Mapping[str, MethodChoice] = {
    # The first layer attends diffusely: at the same budget, dense costs it less than thin.
    "uniform": MethodChoice("uniform", _uniform, dense_layers=(0,)),
    "fisher": MethodChoice("fisher", _fisher, num_windows=12),
    "paper": MethodChoice("paper", _paper),
    "ae": MethodChoice("ae", _ae),
}


def choose_method(
    method: str | None, ratios: Path | None, ratio: float | None
) -> tuple[MethodChoice, float]:
    """The method of `--method`, `--ratios` and `--ratio`, and the budget.

    Raises `ConfigError` for an unknown method, and for a method or budget beside given ratios, and
    `PlanError` for a ratios file that can't be used.
    """
    if ratios is not None:
        if method not in (None, "ratios"):
            raise ConfigError(f"expected --method or --ratios, got both ({method!r}, {ratios})")
        if ratio is not None:
            raise ConfigError(
                f"expected --ratio or --ratios, got both ({ratio}, {ratios}): given ratios are "
                "kept as they are"
            )
        profile = load_ratios(ratios)
        return _given(profile), profile.ratio
    name = "uniform" if method is None else method
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}: expected one of {', '.join(METHODS)}")
    return METHODS[name], _DEFAULT_RATIO if ratio is None else ratio


def _given(profile: RatioProfile) -> MethodChoice:
    def load(inputs: MethodInputs) -> Method:
        del inputs
        from ..calibrate.ratios import given_ratios

        return given_ratios(profile)

    return MethodChoice("ratios", load, dense_layers=profile.dense_layers)
