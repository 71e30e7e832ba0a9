"""What a user may change between answers, and the `/set key=value;...` that changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ConfigError
from .sampling import SamplingParams
from .stop import StopConditions


@dataclass(frozen=True)
class Settings:
    """How answers are drawn and where they end.

    Attributes
    ----------
    sampling : how tokens are drawn.
    max_tokens : the longest answer; None for as many tokens as the context window holds.
    stop : strings that end an answer, besides the model's own.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()

    def stop_conditions(self, model: StopConditions) -> StopConditions:
        """The model's own conditions and these. Raises `ConfigError`."""
        return replace(model, strings=(*model.strings, *self.stop), max_tokens=self.max_tokens)

    def with_values(self, values: Mapping[str, Any]) -> Settings:
        """These settings with some changed, by the names `/set` knows. Raises `ConfigError`."""
        unknown = sorted(set(values) - set(_PARSERS))
        if unknown:
            raise ConfigError(
                f"expected settings among {', '.join(_PARSERS)}; got {', '.join(unknown)}"
            )
        own = {name: value for name, value in values.items() if name in ("max_tokens", "stop")}
        sampling = {name: value for name, value in values.items() if name not in own}
        changed = replace(self, sampling=replace(self.sampling, **sampling), **own)
        changed.stop_conditions(StopConditions())  # refuses what it can't stop at
        return changed

    def describe(self) -> str:
        """All values, as `/set` takes them."""
        values = {name: getattr(self.sampling, name, None) for name in _PARSERS}
        values |= {"max_tokens": self.max_tokens, "stop": ",".join(self.stop)}
        return ";".join(
            f"{name}={'none' if value is None else value}" for name, value in values.items()
        )


def parse_settings(text: str) -> dict[str, Any]:
    """The values in `key=value;key=value`, by name. Raises `ConfigError`.

    Stop strings are separated by commas; `none` takes back `max_tokens` and `seed`.
    """
    values: dict[str, Any] = {}
    for assignment in filter(None, map(str.strip, text.split(";"))):
        name, equals, value = (part.strip() for part in assignment.partition("="))
        parse = _PARSERS.get(name)
        if not equals or parse is None:
            raise ConfigError(
                f"expected key=value with a key among {', '.join(_PARSERS)}; got {assignment!r}"
            )
        try:
            values[name] = parse(value)
        except ValueError:
            raise ConfigError(f"expected a number for {name}, got {value!r}") from None
    return values


def _optional_int(text: str) -> int | None:
    return None if text.lower() == "none" else int(text)


def _strings(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_p": float,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "seed": _optional_int,
    "max_tokens": _optional_int,
    "stop": _strings,
}
