"""`shadowattn convert_weight`: checkpoint -> model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .progress import progress_bar


def convert_weight(
    source: Annotated[Path, typer.Argument(help="A .gguf file or a Hugging Face directory.")],
    quantization: Annotated[str, typer.Option(help="q0f32, q4f32_1, q0f16 or q4f16_1.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model directory to write.")],
    context_window_size: Annotated[
        int | None, typer.Option(help="Tokens; by default the model's own.", min=1)
    ] = None,
    prefill_chunk_size: Annotated[
        int | None, typer.Option(help="Tokens prefilled at a time.", min=1)
    ] = None,
    conv_template: Annotated[
        str | None, typer.Option(help="Conversation template; by default found out.")
    ] = None,
) -> None:
    """Convert weights and tokenizer to MLC's format."""
    from ..weights import convert_weight as convert

    with progress_bar() as bar:
        task = bar.add_task("converting", total=None)
        directory = convert(
            source,
            quantization,
            output,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            context_window_size=context_window_size,
            prefill_chunk_size=prefill_chunk_size,
            conv_template=conv_template,
        )
    print(directory.path)
