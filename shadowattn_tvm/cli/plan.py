"""`shadowattn plan`: look at plans, and exchange keep ratios with other implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..config.atomic import write_text_atomically
from ..config.documents import read_json_object
from ..config.json_layout import write_document
from ..config.paths import configs_dir
from ..errors import PlanError
from ..plan import Decode, Plan, RatioProfile, load_plan, load_ratios, save_plan, save_ratios

plan_app = typer.Typer(
    help="Look at plans; exchange keep ratios with the public implementation.",
    no_args_is_help=True,
)

PlanOrRatios = Annotated[str, typer.Argument(help="Plan file, a shipped plan's name, or RATIOS.")]


@plan_app.command("show")
def show(
    source: PlanOrRatios,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the layer x head map here (.png or .svg).")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
) -> None:
    """Print what a plan keeps, where, and where it comes from."""
    from ..plan.plot import plot_plan, plot_profile, require_plotting
    from ..plan.summary import PlanSummary, ProfileSummary, summarize_plan, summarize_profile
    from .plan_report import plan_budget, print_plan, print_profile

    if plot is not None:
        require_plotting(plot)
    name, document = _load(source)
    out = Console()
    summary: PlanSummary | ProfileSummary
    if isinstance(document, Plan):
        summary = summarize_plan(document, plan_budget(document))
        print_plan(out, name, document, summary)
        title = (
            f"{name}: {document.model.name}, {document.provenance.method}, "
            f"{summary.budget.past_fraction:.1%} of the past"
        )
    else:
        summary = summarize_profile(document)
        print_profile(out, name, document, summary)
        title = f"{name}: {document.source.name}, mean {document.ratio:.1%}"
    if plot is not None:
        if isinstance(document, Plan):
            plot_plan(document, title, plot)
        else:
            plot_profile(document, title, plot)
    if json_file is not None:
        write_document(json_file, summary)


@plan_app.command("decode")
def decode(
    how: Annotated[Decode, typer.Argument(help="Decode dense, or sparse by an INT8 shadow of K.")],
    source: Annotated[str, typer.Argument(help="Plan file or a shipped plan's name.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Plan to write (.json).")],
) -> None:
    """Switch how a plan attends to one new token at a time; everything else stays as it is."""
    name, document = _load(source)
    if not isinstance(document, Plan):
        raise PlanError(f"{name}: expected a plan, got keep ratios, which say nothing of decode")
    save_plan(document.model_copy(update={"decode": how}), output)
    print(output)


@plan_app.command("order")
def order(
    device: Annotated[str, typer.Argument(help="A device of configs/devices, or a .toml file.")],
    source: Annotated[str, typer.Argument(help="Plan file or a shipped plan's name.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Plan to write (.json).")],
    context: Annotated[int, typer.Option(help="Older tokens to plan for.", min=1)] = 2048,
    chunk_tokens: Annotated[
        int | None, typer.Option(help="Queries of a chunk; default: the calibrated.", min=1)
    ] = None,
) -> None:
    """Put a plan's heads in order for a device, by its cost table: who comes first, and who is
    launched together. No result changes."""
    from ..config.devices import device_costs
    from ..pipeline import Shape, all_layers_ms, compiled_launches, planned_launches
    from ..plan import head_order
    from .progress import console

    name, plan = _load(source)
    if not isinstance(plan, Plan):
        raise PlanError(f"{name}: expected a plan, got keep ratios, which have no pipeline")
    if not plan.sharing.pooled:
        raise PlanError(
            f"{name}: expected a plan whose queries or heads share lists, since only they take "
            "turns; make one with `shadowattn calibrate --query-block 16`"
        )
    costs = device_costs(device).costs
    shape = Shape(queries=chunk_tokens or plan.provenance.prefill_chunk_tokens, keys=context)
    launches = planned_launches(plan, costs, shape)
    # what another machine's stages cost is no reason for this order
    changed = {"head_order": head_order(launches), "stage_costs": None}
    save_plan(plan.model_copy(update=changed), output)
    before, after = (
        all_layers_ms(plan, turns, costs, shape) for turns in (compiled_launches(plan), launches)
    )
    console.print(
        f"by the table of {device} all layers take, after {context:,} tokens: {before:.2f} ms "
        f"before, {after:.2f} ms in this order (computed, not measured)",
        highlight=False,
    )
    print(output)


@plan_app.command("import-profile")
def import_profile(
    profile: Annotated[Path, typer.Argument(help="Text: a line a layer, a number a head.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Ratios to write (.json).")],
) -> None:
    """Read keep ratios in the public implementation's text format, for `calibrate --ratios`."""
    from ..plan.ae_profile import read_ae_profile

    save_ratios(read_ae_profile(profile), output)
    print(output)


@plan_app.command("export-profile")
def export_profile(
    source: PlanOrRatios,
    output: Annotated[Path, typer.Option("-o", "--output", help="Text file to write.")],
) -> None:
    """Write keep ratios in the public implementation's text format; dense layers keep 1."""
    from ..plan.ae_profile import ae_profile_text, format_ae_profile
    from ..plan.ratios import plan_keep_ratios

    _, document = _load(source)
    text = (
        format_ae_profile(plan_keep_ratios(document))
        if isinstance(document, Plan)
        else ae_profile_text(document)
    )
    write_text_atomically(output, text)
    print(output)


def _load(source: str) -> tuple[str, Plan | RatioProfile]:
    """A document and the name to call it. Raises `PlanError` for what is neither."""
    path = Path(source)
    shipped = configs_dir() / "plans" / f"{source}.json"
    if not path.exists() and path.name == source and shipped.is_file():
        path = shipped
    if not path.is_file():
        names = sorted(entry.stem for entry in (configs_dir() / "plans").glob("*.json"))
        raise PlanError(
            f"no plan or ratios at {source}: expected a file or a shipped plan's name "
            f"({', '.join(names)})"
        )
    if "document" in read_json_object(path, PlanError):
        return path.name, load_ratios(path)
    return path.name, load_plan(path)
