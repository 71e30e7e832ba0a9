"""From an architecture to a Relax module and the list of parameters it takes."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm.relax.frontend import nn

from ..config.architecture import LlamaConfig
from .layers import layer_factory
from .llama import LlamaForCausalLM


@dataclass(frozen=True)
class ExportedModel:
    """A model as Relax functions.

    Attributes
    ----------
    module : one Relax function per entry of the model's spec.
    parameters : (name, parameter) in the order the functions take them.
    """

    module: tvm.IRModule
    parameters: tuple[tuple[str, nn.Parameter], ...]


def export_model(
    architecture: LlamaConfig, quantization: str, target: tvm.target.Target
) -> ExportedModel:
    """Trace the model for `target`. Raises `ConfigError` for an unknown quantization."""
    with target:
        model = LlamaForCausalLM(architecture, layer_factory(quantization))
        module, parameters, _ = model.export_tvm(spec=model.get_default_spec(), allow_extern=True)
    return ExportedModel(module=module, parameters=tuple(parameters))
