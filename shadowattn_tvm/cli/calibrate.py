"""`shadowattn calibrate`: model directory + corpus -> plan."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from ..corpora import read_documents
from ..errors import ConfigError
from ..plan import save_plan
from .progress import console, progress_bar

METHODS = ("uniform",)


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model directory made by convert_weight.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Plan to write (.json).")],
    method: Annotated[str, typer.Option(help=f"One of: {', '.join(METHODS)}.")] = "uniform",
    ratio: Annotated[
        float,
        typer.Option(help="Past fraction computed exactly, over all layers and heads."),
    ] = 0.2,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            help="'pydoc' (the default), 'wikitext2-train', a UTF-8 text file or a directory of "
            "them; may be given several times."
        ),
    ] = None,
    sigma: Annotated[float, typer.Option(help="Step of the scale buckets.")] = 0.5,
    k_min: Annotated[int, typer.Option(help="Fewest positions a sparse head keeps.")] = 64,
    dense_layers: Annotated[
        str, typer.Option(help="Layers computed exactly, as '0,1'; '' for none.")
    ] = "0",
    num_windows: Annotated[int, typer.Option(help="Windows of the corpus to read.", min=1)] = 8,
    window_tokens: Annotated[
        int | None, typer.Option(help="Tokens in a window; by default 1024.", min=2)
    ] = None,
) -> None:
    """Measure a model's scales on a corpus and write the plan."""
    from ..weights import open_model_directory

    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}")
    directory = open_model_directory(model)
    _require_torch()
    from ..calibrate import calibrate_uniform

    with progress_bar() as bar:
        task = bar.add_task("windows", total=None)
        plan = calibrate_uniform(
            directory,
            ratio,
            read_documents(corpus or ["pydoc"]),
            sigma=sigma,
            k_min=k_min,
            dense_layers=_parse_layers(dense_layers),
            num_windows=num_windows,
            window_tokens=window_tokens,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    save_plan(plan, output)
    console.print(
        f"{plan.model.num_layers} layers of {plan.model.num_q_heads} heads, past fraction "
        f"{plan.past_fraction:.4f}, dense layers {list(plan.dense_layers)}",
        highlight=False,
    )
    print(output)


def _require_torch() -> None:
    """Raise `ConfigError` where the optional packages of calibration are not installed."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(
            "calibration needs torch, which is not installed: "
            "pip install 'shadowattn-tvm[calibrate]'"
        )


def _parse_layers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"--dense-layers: expected numbers as '0,1', got {text!r}")
    return tuple(int(part) for part in parts)
