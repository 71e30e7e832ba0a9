"""`shadowattn bench`: how long things take, contenders side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ConfigError
from ..runtime.threads import use_physical_cores
from .options import RpcKey, RpcServer, RpcTracker, load_shadow_attn
from .progress import progress_bar, stages
from .rigs import DeviceName, chosen_rig
from .values import parse_shape

if TYPE_CHECKING:  # the command line starts without what only some commands need
    from tir_kernels.spec import ShadowSpec

    from ..bench import AttentionGrid, AttentionRow
    from ..bench.attention import LayersOf
    from ..bench.document import Bench, Row
    from ..bench.inputs import LayerInputs
    from ..evaluate.results import Machine

bench_app = typer.Typer(
    help="How long things take: contenders take turns, results are checked before they are timed.",
    no_args_is_help=True,
)

DEFAULT_CONTEXTS = (1024, 2048, 4096, 8192)

_SHAPE_ROWS = 256
"""Queries and keys that say what scales random inputs have."""

Model = Annotated[Path, typer.Argument(help="Model directory made by convert_weight.")]
PlanOption = Annotated[str, typer.Option("--plan", help="Plan file or a shipped plan's name.")]
Contexts = Annotated[
    list[int] | None, typer.Option("--context", help="Older tokens. May be repeated.", min=1)
]
Chunks = Annotated[
    list[int] | None, typer.Option("--chunk", help="Tokens of the chunk. May be repeated.", min=1)
]
InputKind = Annotated[
    Literal["random", "captured"],
    typer.Option("--inputs", help="Random, or captured from the model over --corpus."),
]
Corpus = Annotated[
    list[str] | None, typer.Option(help="Text for captured inputs; pydoc if left out.")
]
Rounds = Annotated[int, typer.Option(help="Times of every contender.", min=1)]
Seed = Annotated[int, typer.Option(help="Of random inputs.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Result file to write.")]


@bench_app.command("attention")
def attention(
    model: Model,
    plan: PlanOption,
    context: Contexts = None,
    chunk: Chunks = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(
            help="CPU workers beside a core that stands in for the NPU; 0 = one core does "
            "everything. May be repeated.",
            min=0,
        ),
    ] = None,
    inputs: InputKind = "random",
    corpus: Corpus = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="Query heads, KV heads and head dim, as 12/2/128: the plan's keep ratios dealt "
            "out to other heads than the model's; random inputs only."
        ),
    ] = None,
    rounds: Rounds = 7,
    baselines: Annotated[bool, typer.Option(help="Time the paper's baselines too.")] = True,
    stock: Annotated[bool, typer.Option(help="Time TVM's own kernel too.")] = True,
    seed: Seed = 0,
    rpc: RpcServer = None,
    tracker: RpcTracker = None,
    key: RpcKey = None,
    device: DeviceName = None,
    json_file: JsonFile = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw time against older tokens here (.png or .svg).")
    ] = None,
) -> None:
    """Attention of a prefill chunk to everything older: one layer, all heads."""
    use_physical_cores()
    from ..bench import AttentionBench, bench_attention, skipped_contenders
    from ..bench.attention_plot import plot_attention
    from ..plan.plot import require_plotting
    from .bench_tables import print_attention

    if plot is not None:
        require_plotting(plot)
    grid, layers = _grid(model, plan, context, chunk, workers, inputs, corpus, rounds, seed, shape)
    grid = replace(grid, with_baselines=baselines, with_stock=stock)
    rows: list[AttentionRow] = []
    with chosen_rig(rpc, tracker, key, device) as rig:
        machine, skipped = rig.machine(), skipped_contenders(rig)
        with progress_bar() as bar:
            for more in bench_attention(grid, layers, rig=rig, progress=stages(bar)):
                rows += more
    _save(AttentionBench, rows, machine, json_file, skipped=skipped)
    if plot is not None:
        plot_attention(rows, f"{model.name}, {plan}, {inputs} inputs", plot)
    print_attention(rows, skipped)


@bench_app.command("pipeline")
def pipeline(
    model: Model,
    plan: PlanOption,
    context: Contexts = None,
    chunk: Chunks = None,
    inputs: InputKind = "random",
    corpus: Corpus = None,
    rounds: Rounds = 7,
    seed: Seed = 0,
    rpc: RpcServer = None,
    tracker: RpcTracker = None,
    key: RpcKey = None,
    device: DeviceName = None,
    json_file: JsonFile = None,
) -> None:
    """All heads in one launch, a core for the NPU's stage and one for the CPU's, against the lower
    bound, a launch for every item, and one core alone."""
    use_physical_cores()
    from ..bench import PipelineBench, bench_pipeline
    from .bench_tables import print_pipeline

    grid, layers = _grid(model, plan, context, chunk, [1], inputs, corpus, rounds, seed)
    with chosen_rig(rpc, tracker, key, device) as rig:
        machine = rig.machine()
        with progress_bar() as bar:
            rows = list(bench_pipeline(grid, layers, rig=rig, progress=stages(bar)))
    _save(PipelineBench, rows, machine, json_file)
    print_pipeline(rows)


@bench_app.command("decode-attention")
def decode_attention(
    model: Model,
    plan: PlanOption,
    context: Contexts = None,
    inputs: InputKind = "random",
    corpus: Corpus = None,
    rounds: Rounds = 7,
    seed: Seed = 0,
    rpc: RpcServer = None,
    tracker: RpcTracker = None,
    key: RpcKey = None,
    device: DeviceName = None,
    json_file: JsonFile = None,
) -> None:
    """One new token's attention, dense and as `plan decode sparse` computes it: one layer, all
    heads, one core."""
    use_physical_cores()
    from ..bench import DecodeBench, DecodeRow, bench_decode_attention
    from .bench_tables import print_decode

    grid, layers = _grid(model, plan, context, [1], None, inputs, corpus, rounds, seed)
    rows: list[DecodeRow] = []
    with chosen_rig(rpc, tracker, key, device) as rig:
        machine = rig.machine()
        with progress_bar() as bar:
            for more in bench_decode_attention(grid, layers, rig=rig, progress=stages(bar)):
                rows += more
    _save(DecodeBench, rows, machine, json_file)
    print_decode(rows)


def _save(
    kind: type[Bench[Row]], rows: Sequence[Row], machine: Machine, path: Path | None, **more: Any
) -> None:
    """Write a bench file of this run, if one is wanted; `more` of its fields."""
    from ..bench import save_bench
    from ..evaluate.results import these_versions

    if path is None:
        return
    record = kind(
        created=datetime.now(UTC).replace(microsecond=0),
        command=("shadowattn", *sys.argv[1:]),
        versions=these_versions(),
        machine=machine,
        rows=tuple(rows),
        **more,
    )
    save_bench(record, path)


def _grid(
    model: Path,
    plan: str,
    contexts: Sequence[int] | None,
    chunks: Sequence[int] | None,
    workers: Sequence[int] | None,
    inputs: Literal["random", "captured"],
    corpus: Sequence[str] | None,
    rounds: int,
    seed: int,
    shape: str | None = None,
) -> tuple[AttentionGrid, LayersOf]:
    """What to time, and on what."""
    from ..bench import AttentionGrid
    from ..bench.inputs import captured_inputs, random_inputs
    from ..compiler.kernel_parameters import shadow_spec
    from ..compiler.library import check_plan
    from ..corpora import read_documents
    from ..weights import open_model_directory

    chosen = load_shadow_attn(plan)
    if chosen is None:
        raise ConfigError("--plan: expected a plan to hold against dense attention, got 'off'")
    directory = open_model_directory(model)
    check_plan(chosen, directory)
    spec = shadow_spec(chosen, directory.architecture)
    if shape is not None:
        if inputs != "random":
            raise ConfigError(
                f"--shape: no model to capture from, expected random inputs, got {inputs}"
            )
        spec = _on_shape(spec, shape, seed)
    grid = AttentionGrid(
        spec=spec,
        plan=plan,
        contexts=tuple(contexts or DEFAULT_CONTEXTS),
        chunks=tuple(chunks or (256,)),
        workers=tuple(workers or ((0, 1) if chosen.sharing.pooled else (0,))),
        rounds=rounds,
        inputs=inputs,
    )

    def layers(num_queries: int, num_keys: int) -> Sequence[LayerInputs]:
        if inputs == "random":
            return [random_inputs(grid.spec.attention, num_queries, num_keys, seed)]
        documents = read_documents(list(corpus or ("pydoc",)))
        return captured_inputs(directory, documents, num_queries, num_keys)

    return grid, layers


def _on_shape(spec: ShadowSpec, shape: str, seed: int) -> ShadowSpec:
    """The plan's budget on heads of another shape. Raises `ConfigError` for what is no shape."""
    from tir_kernels.spec import AttentionSpec, SpecError

    from ..bench.inputs import random_inputs
    from ..bench.other_shape import on_shape

    heads, kv_heads, head_dim = parse_shape(shape)
    try:
        geometry = AttentionSpec(heads, kv_heads, head_dim, sm_scale=head_dim**-0.5)
    except SpecError as error:
        raise ConfigError(f"--shape {shape}: {error}") from error
    return on_shape(spec, geometry, random_inputs(geometry, _SHAPE_ROWS, _SHAPE_ROWS, seed))
