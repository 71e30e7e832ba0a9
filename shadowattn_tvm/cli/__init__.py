"""The `shadowattn` command: parses, calls one function, prints. The work lives elsewhere."""

from .app import main

__all__ = ["main"]
