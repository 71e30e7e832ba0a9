"""`shadowattn calibrate`: model directory + corpora -> plan."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from ..corpora import read_documents
from ..errors import ConfigError
from ..plan import BucketGrid, Pilot, Plan, Sharing, save_plan
from .calibration_methods import METHODS, MethodInputs, choose_method
from .options import RpcKey, RpcServer, RpcTracker, refuse_options
from .plan_pairs import window_pairs
from .progress import console, progress_bar, stages
from .rigs import DeviceName, chosen_rig
from .stage_costs import calibrate_stage_costs
from .values import one_of, parse_layers

PARTIAL_SUFFIX = ".partial"
"""Beside the plan: what is measured so far, to go on from after an interruption."""


ONLY_STAGE_COSTS = ("plan", "context", "rounds", "rpc", "tracker", "key", "device")
"""Parameters that only `--stage-costs` takes."""

WITH_STAGE_COSTS = ("model", "output", "stage_costs", "chunk_tokens", *ONLY_STAGE_COSTS)
"""All that it takes."""


def calibrate(
    context_of_call: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(
            help="Model directory made by convert_weight, ours or mlc_llm's, or the Hugging Face "
            "directory it was made from."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Plan to write (.json).")],
    method: Annotated[
        str | None,
        typer.Option(help=f"One of: {', '.join(METHODS)}; by default uniform."),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            help="Past fraction computed exactly, over all layers and heads, with k_min and dense "
            "layers inside it; by default 0.2."
        ),
    ] = None,
    ratios: Annotated[
        Path | None,
        typer.Option(
            help="Keep ratios to build the plan around, as they are (plan import-profile)."
        ),
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            help="'pydoc' (the default), 'wikitext2-train', a UTF-8 text file or a directory of "
            "them; may be given several times."
        ),
    ] = None,
    num_windows: Annotated[
        int | None, typer.Option(help="Windows to read; the default depends on the method.", min=1)
    ] = None,
    ablation_windows: Annotated[
        int, typer.Option(help="Short windows that paper and ae measure importance on.", min=1)
    ] = 128,
    window_tokens: Annotated[
        int | None, typer.Option(help="Tokens in a window; by default 2048.", min=2)
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens prefilled together; by default the model directory's.", min=1),
    ] = None,
    measurements: Annotated[
        Path | None,
        typer.Option(
            help="Where to keep what is measured, for plans of other ratios; by default it is "
            "removed when the plan is written."
        ),
    ] = None,
    k_min: Annotated[
        int | None, typer.Option(help="Fewest positions a sparse head keeps; by default 16.")
    ] = None,
    dense_layers: Annotated[
        str | None,
        typer.Option(
            help="Layers computed exactly, as '0,1'; '' for none. By default 0 for uniform, none "
            "for the others."
        ),
    ] = None,
    share_group: Annotated[
        bool, typer.Option(help="The query heads of a KV head share their lists.")
    ] = False,
    query_block: Annotated[
        int, typer.Option(help="Queries that share a list: 1, 8, 16, 32, 64 or 128.")
    ] = 1,
    rest: Annotated[
        str,
        typer.Option(
            help="What prefill does about keys on no list: dropped (the paper's setting), or mean: "
            "one more key stands for them, the mean of a sample of the past."
        ),
    ] = "dropped",
    voters: Annotated[
        float,
        typer.Option(
            help="Part of the queries that vote on shared lists, over all heads: of a head whose "
            "queries look for the same keys every 2nd, 4th ... does. 1: all do."
        ),
    ] = 1.0,
    sigma: Annotated[float, typer.Option(help="Step of the scale buckets, between 0 and 1.")] = 0.5,
    buckets_per_axis: Annotated[
        int, typer.Option(help="Scales on offer for Q, and for K: 1, 3 or 5.")
    ] = 3,
    pilot_bits: Annotated[int, typer.Option(help="Of the quantized Q and K: 8, 7, 6 or 4.")] = 8,
    center_keys: Annotated[
        bool, typer.Option(help="Subtract the corpus' mean key before quantizing.")
    ] = False,
    hadamard: Annotated[bool, typer.Option(help="Rotate Q and K before quantizing.")] = False,
    score_bits: Annotated[
        int | None,
        typer.Option(help="8 and 9 requantize scores; 32 doesn't. By default 9 for shared lists."),
    ] = None,
    requant_percentile: Annotated[
        float, typer.Option(help="Of the observed factors, the static one; with 8 or 9 score bits.")
    ] = 5.0,
    requant_margin: Annotated[
        float, typer.Option(help="Part of that factor left off, against clamping.")
    ] = 0.03,
    stage_costs: Annotated[
        bool,
        typer.Option(
            "--stage-costs",
            help="Measure what the stages of --plan's heads cost on this machine, or on a device "
            "behind RPC, plan the order of the heads by it, and write the plan again with both.",
        ),
    ] = False,
    plan: Annotated[
        str | None,
        typer.Option(help="With --stage-costs: the plan, whose queries or heads share lists."),
    ] = None,
    context: Annotated[
        list[int] | None,
        typer.Option(
            help="With --stage-costs: older tokens to measure; the order is for the most. May be "
            "repeated.",
            min=1,
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="With --stage-costs: measurements of every list.", min=1)
    ] = 7,
    rpc: RpcServer = None,
    tracker: RpcTracker = None,
    key: RpcKey = None,
    device: DeviceName = None,
) -> None:
    """Measure a model's scales on a corpus, spread the budget over its heads, write the plan.

    An interrupted run, started again with the same options, goes on where it was.
    """
    from ..weights import open_any_directory

    if stage_costs:
        others = {parameter.name or "" for parameter in context_of_call.command.params}
        refuse_options(context_of_call, others - {*WITH_STAGE_COSTS}, "with --stage-costs")
        if plan is None:
            raise ConfigError("--stage-costs: expected a plan by --plan, got none")
        calibrate_stage_costs(
            model,
            plan,
            output,
            contexts=context,
            chunk_tokens=chunk_tokens,
            rounds=rounds,
            rig=context_of_call.with_resource(chosen_rig(rpc, tracker, key, device)),
        )
        return
    refuse_options(context_of_call, ONLY_STAGE_COSTS, "without --stage-costs")
    choice, budget = choose_method(method, ratios, ratio)
    if ratios is not None and dense_layers is not None:
        raise ConfigError(
            f"expected --dense-layers or --ratios, got both ({dense_layers!r}, {ratios}): layers "
            "whose given ratios are all 1 are dense"
        )
    pooled = share_group or query_block > 1
    documents = read_documents(corpus or ["pydoc"])
    directory = context_of_call.with_resource(open_any_directory(model))
    _require_torch()
    from ..calibrate import DEFAULT_K_MIN, CalibrationSettings, chosen_by_cost
    from ..calibrate import calibrate as calibrate_model

    if not 0.0 < sigma < 1.0:
        raise ConfigError(f"expected a bucket step sigma between 0 and 1, got {sigma}")
    settings = CalibrationSettings(
        ratio=budget,
        k_min=DEFAULT_K_MIN if k_min is None else k_min,
        dense_layers=choice.dense_layers if dense_layers is None else parse_layers(dense_layers),
        buckets=BucketGrid(
            sigma=sigma, per_axis=one_of("--buckets-per-axis", buckets_per_axis, (1, 3, 5))
        ),
        pilot=Pilot(
            bits=one_of("--pilot-bits", pilot_bits, (8, 7, 6, 4)),
            center_keys=center_keys,
            hadamard_rotation=hadamard,
            score_bits=one_of("--score-bits", score_bits or (9 if pooled else 32), (8, 9, 32)),
        ),
        sharing=Sharing(
            gqa_group=share_group,
            query_block=one_of("--query-block", query_block, (1, 8, 16, 32, 64, 128)),
        ),
        rest=one_of("--rest", rest, ("dropped", "mean")),
        num_windows=num_windows or choice.num_windows,
        window_tokens=window_tokens,
        prefill_chunk_tokens=chunk_tokens,
        requant_percentile=requant_percentile,
        requant_margin=requant_margin,
        voting_fraction=voters,
    )
    partial = measurements or output.with_name(output.name + PARTIAL_SUFFIX)
    with progress_bar() as bar:
        made = calibrate_model(
            directory,
            documents,
            choice.name,
            choice.load(MethodInputs(documents, ablation_windows)),
            settings,
            choose_strides=chosen_by_cost if voters < 1.0 else None,
            partial_path=partial,
            progress=stages(bar),
        )
    save_plan(made, output)
    if measurements is None:
        partial.unlink(missing_ok=True)
    _report(made)
    print(output)


def _report(plan: Plan) -> None:
    model, made = plan.model, plan.provenance
    pairs = window_pairs(plan)
    console.print(
        f"{model.num_layers} layers of {model.num_q_heads} heads, dense layers "
        f"{list(plan.dense_layers)}; prompts of {made.window_tokens} tokens in chunks of "
        f"{made.prefill_chunk_tokens} compute {pairs.past_fraction:.2%} of the past, "
        f"{pairs.total_fraction:.2%} of all pairs",
        highlight=False,
    )


def _require_torch() -> None:
    """Raise `ConfigError` where the optional packages of calibration are not installed."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(
            "calibration needs torch, which is not installed: "
            "pip install 'shadowattn-tvm[calibrate]'"
        )
