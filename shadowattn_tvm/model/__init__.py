"""Models as `relax.frontend.nn` modules, exporting the functions MLC's engine looks up."""

from .export import ExportedModel, export_model
from .llama import LlamaForCausalLM

__all__ = ["ExportedModel", "LlamaForCausalLM", "export_model"]
