"""MetaSchedule's database files, read as what they are: text from outside.

A line of `database_workload.json` is a workload's hash and its serialized definition; a line of
`database_tuning_record.json` a workload's number, a trace, seconds, a target, and arguments. TVM
would turn both into objects of its own, whatever they hold. Here the hash tells workloads apart,
and of a trace only the decisions count that `tir_kernels.tuning.schedule` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tvm
from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from tvm.s_tir import meta_schedule as ms

from tir_kernels.features import CpuFeatures
from tir_kernels.spec import SpecError
from tir_kernels.tuning.definitions import definition
from tir_kernels.tuning.schedule import SIZE_KEY
from tir_kernels.tuning.space import tile_of_sizes
from tir_kernels.tuning.workloads import Tile, Workload

from ..config.documents import describe_mistakes, read_text
from ..errors import ConfigError

WORKLOAD_FILE = "database_workload.json"
RECORD_FILE = "database_tuning_record.json"
"""MetaSchedule's names."""

_COMPARABLE_PART = 0.5
"""Of the measurements that the most measured tile has: those with fewer aren't compared with it."""

_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Instruction = tuple[str, list[JsonValue], list[JsonValue], list[str]]
_Trace = tuple[list[_Instruction], list[tuple[int, JsonValue]]]
_Record = tuple[_Trace, Annotated[list[_Seconds], Field(min_length=1)], dict[str, JsonValue], Any]

_WORKLOAD_LINE = TypeAdapter(tuple[str, str])
_RECORD_LINE = TypeAdapter(tuple[int, _Record])

Line = TypeVar("Line")


@dataclass(frozen=True)
class Record:
    """A line of the record file.

    Attributes
    ----------
    where : file and line, for messages.
    workload : number of the workload's line.
    sizes : of the tile.
    run_s : seconds of each measurement.
    target : as TVM exports it.
    """

    where: str
    workload: int
    sizes: Mapping[str, int]
    run_s: tuple[float, ...]
    target: Mapping[str, Any]


@dataclass(frozen=True)
class TuningDatabase:
    """What is in the files: the workloads' hashes, and the records."""

    workloads: tuple[str, ...]
    records: tuple[Record, ...]

    def times_s(
        self, workload: Workload, target: tvm.target.Target, features: CpuFeatures
    ) -> dict[Tile, float]:
        """The seconds of every tile that was measured on exactly this target, and of those about as
        often as any: of more measurements, the shortest is shorter.

        Raises `ConfigError` for a tile that the kernels don't take.
        """
        wanted, _definition = ms.database.Workload(definition(workload)).as_json()
        numbers = {i for i, known in enumerate(self.workloads) if known == wanted}
        exported = plain_target(target)
        times: dict[Tile, list[float]] = {}
        for record in self.records:
            if record.workload in numbers and record.target == exported:
                tile = _checked_tile(workload, features, record)
                times.setdefault(tile, []).extend(record.run_s)
        most = max(map(len, times.values()), default=0)
        return {
            tile: min(seconds)
            for tile, seconds in times.items()
            if len(seconds) >= _COMPARABLE_PART * most
        }


def read_database(folder: Path) -> TuningDatabase | None:
    """The database in a folder; None if there is none.

    Raises `ConfigError` if a file is unreadable, one of the two is missing, or a line holds
    anything but a record of `shadowattn tune`.
    """
    workload_file, record_file = folder / WORKLOAD_FILE, folder / RECORD_FILE
    if not workload_file.exists() and not record_file.exists():
        return None
    workloads = tuple(hash_ for hash_, _ in _lines(workload_file, _WORKLOAD_LINE).values())
    records = tuple(
        _record(where, number, record)
        for where, (number, record) in _lines(record_file, _RECORD_LINE).items()
    )
    for record in records:
        if not 0 <= record.workload < len(workloads):
            raise ConfigError(
                f"{record.where}: expected the number of one of the {len(workloads)} lines of "
                f"{WORKLOAD_FILE}, got {record.workload}"
            )
    return TuningDatabase(workloads, records)


def plain_target(target: tvm.target.Target) -> dict[str, Any]:
    """Everything that TVM says of a target, in JSON's types."""
    return {str(key): _plain(value) for key, value in target.export().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tvm.ir.Array | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, tvm.ir.Map | dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, bool | int | float) else str(value)


def _lines(path: Path, kind: TypeAdapter[Line]) -> dict[str, Line]:
    """What each line holds, by where it is."""
    parsed = {}
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        where = f"{path}, line {number}"
        try:
            parsed[where] = kind.validate_json(text, strict=True)
        except ValidationError as error:
            raise ConfigError(
                f"{describe_mistakes(error, where)}\n"
                "take the line out, or make the database again with `shadowattn tune`"
            ) from None
    return parsed


def _record(where: str, number: int, record: _Record) -> Record:
    (instructions, decisions), run_s, target, _arguments = record
    return Record(where, number, _sizes(where, instructions, decisions), tuple(run_s), target)


def _sizes(
    where: str, instructions: list[_Instruction], decisions: list[tuple[int, JsonValue]]
) -> dict[str, int]:
    """What a trace of ours decides: sampled candidates, each the value of an annotation."""
    decided = dict(decisions)
    values: dict[JsonValue, int] = {}
    sizes: dict[str, int] = {}
    for number, (kind, inputs, attributes, outputs) in enumerate(instructions):
        match kind, inputs, attributes, outputs:
            case "GetSBlock", [], [str(), str()], [str()]:
                pass
            case "SampleCategorical", [], [list(candidates), list()], [output]:
                choice = decided.get(number)
                if type(choice) is not int or not 0 <= choice < len(candidates):
                    raise ConfigError(
                        f"{where}: expected a decision in 0..{len(candidates) - 1}, got {choice!r}"
                    )
                value = candidates[choice]
                if type(value) is not int:
                    raise ConfigError(f"{where}: expected a whole number as a size, got {value!r}")
                values[output] = value
            case "Annotate", [str(), str(value_name)], [str(key)], [] if (
                key.startswith(SIZE_KEY) and value_name in values
            ):
                sizes[key.removeprefix(SIZE_KEY)] = values[value_name]
            case _:
                raise ConfigError(
                    f"{where}: expected a trace of `shadowattn tune`, got the instruction "
                    f"{kind[:40]!r} in it"
                )
    return sizes


def _checked_tile(workload: Workload, features: CpuFeatures, record: Record) -> Tile:
    try:
        return tile_of_sizes(workload, features, record.sizes)
    except SpecError as error:
        raise ConfigError(f"{record.where}: {error}") from None
