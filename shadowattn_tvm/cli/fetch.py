"""`shadowattn fetch`: a known model's checkpoint, from where its configuration says."""

from __future__ import annotations

from typing import Annotated

import typer

from .progress import console


def fetch(
    name: Annotated[str, typer.Argument(help="A model we have a configuration for.")],
) -> None:
    """Download a model's weights once and print where they are."""
    from ..config.paths import cache_dir
    from ..weights import fetch as fetch_model

    with console.status(f"fetching {name}") as status:
        path = fetch_model(name, cache_dir(), status=status.update)
    print(path)
