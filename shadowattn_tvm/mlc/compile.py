"""`mlc_llm compile` with our attention in the library it makes.

MLC's own command runs, from its argument parser to its linker, with three of its names replaced:
the function that finds the model (to learn where it is), the one that compiles (to refuse in time
what we can't do), and, while its pipeline runs, two passes: the one that fills the KV cache's
slots, after which ours come, and the one before its schedules.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm

from tir_kernels.spec import ShadowSpec

from ..compiler import check_plan
from ..compiler.kernel_parameters import planned_spec, stored_spec
from ..compiler.metadata import shadow_metadata
from ..config.chat_config import CHAT_CONFIG_FILE
from ..errors import CompileError, ConfigError
from ..plan import Plan
from ..transform.attach_shadow_attention import require_attachable
from ..transform.kv_cache_slots import Slot, slot_function
from ..weights import open_model_directory
from ..weights.tensor_cache import TENSOR_CACHE_FILE
from .geometry import Geometry, model_geometry
from .installation import require_known_layout, swapped
from .kernels import KernelSet, kernel_set

QUANTIZATIONS = ("q0f32", "q0f16", "q4f16_1", "q4f32_1")
"""MLC's names for those whose libraries are tested with shadowAttn."""


@dataclass(frozen=True)
class CompileReport:
    """What was done to one library.

    Attributes
    ----------
    output : the library.
    target : TVM's description of what it is for.
    quantization : MLC's name.
    geometry : the model's attention.
    shadow : the plan's parameters; None for dense attention.
    slots : kernels by slot of the KV cache, (before, after), where they differ.
    weights_checked : the plan was compared with the model's weights, not with its shape alone.
    """

    output: Path
    target: str
    quantization: str
    geometry: Geometry
    shadow: ShadowSpec | None
    slots: dict[str, tuple[str, str]]
    weights_checked: bool


def compile_with(argv: Sequence[str], plan: Plan | None) -> CompileReport:
    """Run `mlc_llm compile` on `argv` (what follows the subcommand) with a plan, or with our dense
    kernels where it is None.

    Raises `ConfigError` (an mlc_llm of another layout), `PlanError` (a plan of another model),
    `CompileError` (a model or target we have no kernels for), before anything is compiled; exits
    as MLC does where it doesn't understand the arguments.
    """
    require_known_layout()
    command = importlib.import_module("mlc_llm.cli.compile")
    hook = _Hook(plan)
    with swapped(
        command,
        detect_mlc_chat_config=hook.finding(command.detect_mlc_chat_config),
        compile=hook.compiling(command.compile),
    ):
        command.main(list(argv))
    assert hook.report is not None, "require_known_layout lets nothing through that passes us by"
    return hook.report


class _Hook:
    """What is learned on the way, from one replaced function to the next."""

    def __init__(self, plan: Plan | None) -> None:
        self.plan = plan
        self.config_path: Path | None = None
        self.report: CompileReport | None = None

    def finding(self, original: Callable[[str], Path]) -> Callable[[str], Path]:
        """`detect_mlc_chat_config`."""

        def detect_mlc_chat_config(model: str) -> Path:
            self.config_path = original(model)
            return self.config_path

        return detect_mlc_chat_config

    def compiling(self, original: Callable[..., None]) -> Callable[..., None]:
        """`compile`: everything is known that the user has said."""

        def compile_(**arguments: Any) -> None:
            target, quantization = arguments["target"], arguments["quantization"].name
            if quantization not in QUANTIZATIONS:
                raise CompileError(
                    f"expected one of the quantizations {', '.join(QUANTIZATIONS)}, got "
                    f"{quantization}"
                )
            kernels = kernel_set(target)
            weights_checked = self._check_weights()
            build = _Build(self.plan, target, quantization, kernels, weights_checked)
            original(**{**arguments, "build_func": build.around(arguments["build_func"])})
            self.report = build.report

        return compile_

    def _check_weights(self) -> bool:
        """Compare the plan with the weights, if they are there: MLC compiles from a description
        alone."""
        assert self.config_path is not None
        folder = self.config_path.parent
        whole = self.config_path.name == CHAT_CONFIG_FILE and (folder / TENSOR_CACHE_FILE).is_file()
        if self.plan is None or not whole:
            return False
        check_plan(self.plan, open_model_directory(folder))
        return True


class _Build:
    """MLC's build function with ours around it: the model is traced, the pipeline is to run."""

    def __init__(
        self,
        plan: Plan | None,
        target: tvm.target.Target,
        quantization: str,
        kernels: KernelSet,
        weights_checked: bool,
    ) -> None:
        self.plan = plan
        self.target = target
        self.quantization = quantization
        self.kernels = kernels
        self.weights_checked = weights_checked
        self.report: CompileReport | None = None

    def around(self, original: Callable[..., None]) -> Callable[..., None]:
        def build(module: tvm.IRModule, arguments: Any, pipeline: Any = None) -> None:
            _require_supported_limits(arguments)
            geometry = model_geometry(module)
            shadow = None
            if self.plan is not None:
                spec = planned_spec(
                    self.plan,
                    geometry.attention,
                    num_layers=geometry.num_layers,
                    context_window_tokens=_limit(arguments, "context_window_size"),
                )
                require_attachable(module, spec)
                shadow = stored_spec(spec, self.plan)
                if self.plan.decode == "sparse" and geometry.rope_theta is None:
                    raise CompileError(
                        "sparse decode needs our rotary embedding, which doesn't have this "
                        'model\'s kind: set "decode" to "dense" in the plan'
                    )
            attach = self.kernels.attach(self.target, geometry, shadow)
            passes = importlib.import_module("mlc_llm.compiler_pass.pipeline")
            slots: dict[str, tuple[str, str]] = {}
            replaced: dict[str, Any] = {
                "DispatchKVCacheCreation": self._dispatch(
                    passes.DispatchKVCacheCreation, attach, shadow, slots
                )
            }
            if self.kernels.schedule is not None:
                replaced["LowBatchGemvSpecialize"] = self.kernels.schedule
            with swapped(passes, **replaced), self.kernels.context():
                original(module, arguments, pipeline=pipeline)
            assert slots or not attach, "MLC's pipeline ran without our passes"
            self.report = CompileReport(
                output=Path(arguments.output),
                target=str(self.target),
                quantization=self.quantization,
                geometry=geometry,
                shadow=shadow,
                slots=slots,
                weights_checked=self.weights_checked,
            )

        return build

    def _dispatch(
        self,
        original: Callable[..., tvm.transform.Pass],
        attach: list[tvm.transform.Pass],
        shadow: ShadowSpec | None,
        slots: dict[str, tuple[str, str]],
    ) -> Callable[..., tvm.transform.Pass]:
        """MLC's pass that fills the slots, and then ours."""

        def dispatch(target: Any, flashinfer: bool, metadata: dict[str, Any]) -> Any:
            if self.plan is not None and shadow is not None:
                metadata["shadow_attn"] = shadow_metadata(self.plan, shadow)
            return tvm.transform.Sequential(
                [original(target, flashinfer, metadata), _attached(attach, slots)]
            )

        return dispatch


def _attached(
    attach: list[tvm.transform.Pass], slots: dict[str, tuple[str, str]]
) -> tvm.transform.Pass:
    """`attach`, noting in `slots` what changed."""

    @tvm.transform.module_pass(opt_level=0, name="AttachShadowAttn")
    def run(module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        before = {slot: slot_function(module, slot).name_hint for slot in Slot}
        module = tvm.transform.Sequential(attach)(module) if attach else module
        after = {slot: slot_function(module, slot).name_hint for slot in Slot}
        slots.update(
            {
                slot.name.lower(): (before[slot], after[slot])
                for slot in Slot
                if before[slot] != after[slot]
            }
        )
        return module

    return run


def _require_supported_limits(arguments: Any) -> None:
    """`arguments` are MLC's `CompileArgs`."""
    for name, plain, feature in (
        ("sliding_window_size", -1, "a sliding window"),
        ("tensor_parallel_shards", 1, "tensor parallelism"),
        ("pipeline_parallel_stages", 1, "pipeline parallelism"),
    ):
        value = _limit(arguments, name, plain)
        if value not in (plain, None):
            raise CompileError(
                f"shadowAttn can't be compiled with {feature} ({name}={value}); "
                f'turn it off with --overrides "{name}={plain}", or leave --shadow-attn out'
            )


def _limit(arguments: Any, name: str, default: int | None = None) -> Any:
    """A limit of the model, as `--overrides` has it."""
    chosen = getattr(arguments.overrides, name, None)
    if chosen is not None:
        return chosen
    if default is None and not hasattr(arguments.config, name):
        raise ConfigError(f"expected {name} in the model's description, got none")
    return getattr(arguments.config, name, default)
