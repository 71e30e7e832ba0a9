"""The result file: what was measured, and everything needed to measure it again."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ..config.documents import describe_mistakes, read_json_object
from ..config.json_layout import write_document
from ..errors import ConfigError
from ..plan import Plan, plan_hash
from ..runtime.threads import THREADS_VARIABLE, num_physical_cores
from ..weights import ModelDirectory, model_fingerprint
from .budget import Budget
from .document import Count, TaskResult
from .tasks.agreement import AgreementResult
from .tasks.ppl import PplResult
from .tasks.recall import RecallResult
from .tasks.retrieval import RetrievalResult

_VERSIONED = ("shadowattn-tvm", "apache-tvm", "numpy", "tokenizers")


class Versions(TaskResult):
    """Of what computed the figures."""

    python: str
    packages: dict[str, str]


class Machine(TaskResult):
    """Where it ran. `physical_cores`: null where a device doesn't say."""

    system: str
    processor: str
    physical_cores: Count | None
    threads: str | None


class EvaluatedModel(TaskResult):
    """Which model: `weight_hash` names the converted weights, `fingerprint` the checkpoint."""

    directory: str
    model_type: str
    quantization: str
    weight_hash: str
    fingerprint: str


class EvaluatedPlan(TaskResult):
    """Which plan: `hash` covers everything that changes the kernels."""

    name: str
    hash: str
    method: str
    ratio: float


class EvaluatedDocument(TaskResult):
    """A held-out text: SHA-256 (hex) of its UTF-8 bytes, and how many windows are of it."""

    name: str
    sha256: str
    windows: Count


class EvaluatedCorpus(TaskResult):
    """What was read: `sources` as given, the documents used, and those left out because the plan
    was calibrated on them."""

    sources: Annotated[tuple[str, ...], Field(strict=False)]
    documents: Annotated[tuple[EvaluatedDocument, ...], Field(strict=False)]
    left_out: Annotated[tuple[str, ...], Field(strict=False)]


class Results(TaskResult):
    """One field a task; null where it wasn't asked for."""

    recall: RecallResult | None = None
    ppl: PplResult | None = None
    passkey: RetrievalResult | None = None
    needle: RetrievalResult | None = None
    agreement: AgreementResult | None = None


class EvaluationRecord(TaskResult):
    """A result file."""

    schema_version: Literal[1] = 1
    created: Annotated[datetime, Field(strict=False)]
    command: Annotated[tuple[str, ...], Field(strict=False)]
    versions: Versions
    machine: Machine
    model: EvaluatedModel
    plan: EvaluatedPlan
    corpus: EvaluatedCorpus
    budget: Budget
    results: Results


def save_record(record: EvaluationRecord, path: Path) -> None:
    """Write a result file atomically. Raises `OutputError`."""
    write_document(path, record)


def load_record(path: Path) -> EvaluationRecord:
    """Read a result file. Raises `ConfigError` with the path to every offending value."""
    try:
        return EvaluationRecord.model_validate(read_json_object(path))
    except ValidationError as error:
        raise ConfigError(describe_mistakes(error, f"{path}: not a result file")) from None


def this_machine() -> Machine:
    """The machine of this process."""
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor_name(),
        physical_cores=num_physical_cores(),
        threads=os.environ.get(THREADS_VARIABLE),
    )


def these_versions() -> Versions:
    """Installed versions of what computes."""
    return Versions(
        python=platform.python_version(), packages={name: version(name) for name in _VERSIONED}
    )


def describe_model(directory: ModelDirectory) -> EvaluatedModel:
    """The model, by name and content."""
    return EvaluatedModel(
        directory=directory.path.name,
        model_type=directory.chat_config.type_,
        quantization=directory.quantization,
        weight_hash=directory.weight_hash,
        fingerprint=model_fingerprint(directory),
    )


def describe_plan(plan: Plan) -> EvaluatedPlan:
    """The plan, by content and origin."""
    return EvaluatedPlan(
        name=plan.model.name,
        hash=plan_hash(plan),
        method=plan.provenance.method,
        ratio=plan.provenance.ratio,
    )


def _processor_name() -> str:
    """As the system calls it; its architecture where it doesn't say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
