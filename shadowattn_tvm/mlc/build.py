"""The step from MLC's traced model to its library, with our passes in MLC's pipeline.

While the pipeline runs, two of the passes it names are others: the one that says which kernels the
KV cache is created with, after which ours are attached, and the one before its schedules, which on
a CPU is ours instead. (Of MLC's own CPU schedule, TVM's rule for matrix-vector products, LLVM takes
half a minute and more to compile a single one.)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import tvm

from tir_kernels.quick_parsing import quicken_parsing
from tir_kernels.spec import ShadowSpec

from ..compiler import check_plan
from ..compiler.kernel_parameters import planned_spec, stored_spec
from ..compiler.metadata import shadow_metadata
from ..errors import CompileError
from ..plan import Plan, plan_hash
from ..transform.attach_shadow_attention import require_attachable
from ..transform.kv_cache_slots import Slot, slot_name
from ..weights import ModelDirectory
from .geometry import Geometry, model_geometry
from .installation import swapped
from .kernels import kernel_set
from .report import CompileReport, SwappedKernel
from .vocabulary import bind_vocabulary

LOADED_SUFFIXES = (".so", ".dylib", ".dll")
"""Of MLC's libraries that are loaded; others are archives that are linked into a program."""


class BuildHook:
    """Wraps MLC's build function.

    Parameters
    ----------
    plan : what to compile in; None for dense attention.
    open_directory : opens the model's weights, if there are any to compare the plan with.

    Attributes
    ----------
    report : what was done; None until then.
    """

    def __init__(
        self, plan: Plan | None, open_directory: Callable[[], ModelDirectory | None]
    ) -> None:
        self.plan = plan
        self.open_directory = open_directory
        self.report: CompileReport | None = None

    def around(self, original: Callable[..., None]) -> Callable[..., None]:
        """A build function that calls `original`; its `arguments` are MLC's `CompileArgs`. Raises
        like `compile_with`."""

        def build(module: tvm.IRModule, arguments: Any, pipeline: Any = None) -> None:
            quicken_parsing()
            kernels = kernel_set(arguments.target, dense=self.plan is None)
            _require_supported_limits(arguments)
            geometry = model_geometry(module)
            directory = self.open_directory()
            shadow = self._shadow(module, geometry, directory, arguments)
            system_lib = arguments.output.suffix not in LOADED_SUFFIXES
            attach = kernels.attach(arguments.target, geometry, shadow, system_lib)
            if kernels.known_vocabulary and (self.plan is not None or directory is not None):
                module = bind_vocabulary(module, arguments.config.vocab_size)
            changes = _Changes()
            passes = importlib.import_module("mlc_llm.compiler_pass.pipeline")
            replaced: dict[str, Any] = {
                "DispatchKVCacheCreation": self._dispatch(
                    passes.DispatchKVCacheCreation, attach, shadow, changes
                ),
                **kernels.instead,
            }
            with swapped(passes, **replaced), kernels.context():
                original(module, arguments, pipeline=pipeline)
            assert changes.swapped or not attach, "MLC's pipeline ran without our passes"
            self.report = self._report(arguments, geometry, directory, changes)

        return build

    def _shadow(
        self,
        module: tvm.IRModule,
        geometry: Geometry,
        directory: ModelDirectory | None,
        arguments: Any,
    ) -> ShadowSpec | None:
        """The plan's parameters, once it is known to be for this model."""
        plan = self.plan
        if plan is None:
            return None
        spec = planned_spec(
            plan,
            geometry.attention,
            num_layers=geometry.num_layers,
            context_window_tokens=_limit(arguments, "context_window_size"),
        )
        if directory is not None:
            check_plan(plan, directory)
        require_attachable(module, spec)
        if plan.decode == "sparse" and geometry.rope_theta is None:
            raise CompileError(
                "sparse decode needs our rotary embedding, which doesn't have this model's kind; "
                "switch decode in the plan"
            )
        return stored_spec(spec, plan)

    def _dispatch(
        self,
        original: Callable[..., tvm.transform.Pass],
        attach: list[tvm.transform.Pass],
        shadow: ShadowSpec | None,
        changes: _Changes,
    ) -> Callable[..., tvm.transform.Pass]:
        """MLC's pass that fills the slots, and then ours."""

        def dispatch(target: Any, flashinfer: bool, metadata: dict[str, Any]) -> Any:
            if self.plan is not None and shadow is not None:
                metadata["shadow_attn"] = shadow_metadata(self.plan, shadow)
            return tvm.transform.Sequential(
                [original(target, flashinfer, metadata), _Attach(attach, changes)]
            )

        return dispatch

    def _report(
        self,
        arguments: Any,
        geometry: Geometry,
        directory: ModelDirectory | None,
        changes: _Changes,
    ) -> CompileReport:
        attention = geometry.attention
        return CompileReport(
            output=str(arguments.output),
            target=str(arguments.target),
            quantization=arguments.quantization.name,
            weights_checked=self.plan is not None and directory is not None,
            num_layers=geometry.num_layers,
            num_q_heads=attention.num_q_heads,
            num_kv_heads=attention.num_kv_heads,
            head_dim=attention.head_dim,
            kv_dtype=attention.dtype,
            swapped=tuple(changes.swapped),
            added=tuple(changes.added),
            plan_name=None if self.plan is None else self.plan.model.name,
            plan_hash=None if self.plan is None else plan_hash(self.plan),
        )


class _Changes:
    """What our passes did: slots of the KV cache with other kernels, functions that are new."""

    def __init__(self) -> None:
        self.swapped: list[SwappedKernel] = []
        self.added: list[str] = []


@tvm.transform.module_pass(opt_level=0, name="AttachShadowAttn")
class _Attach:
    """Some passes as one that notes what they did."""

    def __init__(self, passes: list[tvm.transform.Pass], changes: _Changes) -> None:
        self.passes = passes
        self.changes = changes

    def transform_module(
        self, before: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        if not self.passes:
            return before
        after = tvm.transform.Sequential(self.passes)(before)
        for slot in Slot:
            old, new = (slot_name(module, slot) for module in (before, after))
            if old != new:
                kernel = SwappedKernel(slot=slot.name.lower(), before=old, after=new)
                self.changes.swapped.append(kernel)
        names_before, names_after = (
            {global_var.name_hint for global_var in module.get_global_vars()}
            for module in (before, after)
        )
        in_slots = {kernel.after for kernel in self.changes.swapped}
        self.changes.added += sorted((names_after | in_slots) - names_before)
        return after


def _require_supported_limits(arguments: Any) -> None:
    for name, plain, feature in (
        ("sliding_window_size", -1, "a sliding window"),
        ("tensor_parallel_shards", 1, "tensor parallelism"),
        ("pipeline_parallel_stages", 1, "pipeline parallelism"),
    ):
        value = _limit(arguments, name)
        if value not in (plain, None):
            raise CompileError(
                f"shadowAttn can't be compiled with {feature} ({name}={value}): turn it off with "
                f'--overrides "{name}={plain}", or leave --shadow-attn out'
            )


def _limit(arguments: Any, name: str) -> Any:
    """A limit of the model, as `--overrides` has it; None where neither says."""
    chosen = getattr(arguments.overrides, name, None)
    return getattr(arguments.config, name, None) if chosen is None else chosen
