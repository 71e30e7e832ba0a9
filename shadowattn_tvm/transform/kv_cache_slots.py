"""Where attention kernels live: the arguments of `vm.builtin.paged_attention_kv_cache_create`.

The runtime's paged KV cache receives its attention PrimFuncs when it is created. This file knows
the positions of those arguments in TVM 0.26 and how to put other PrimFuncs there, in our models
and in MLC's alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, PyExprVisitor, mutator, visitor

from ..errors import CompileError

CREATE_BUILTIN = "vm.builtin.paged_attention_kv_cache_create"
ATTENTION_BUILTIN = "vm.builtin.attention_kv_cache_attention_with_fused_qkv"

_NUM_CREATE_ARGUMENTS = 28
_SIZES_ARGUMENT = 0
_KV_HEADS_ARGUMENT = 3
_ATTENTION_KINDS_ARGUMENT = 6
_MHA_KIND = 0


class Slot(IntEnum):
    """Argument index of each kernel we may replace."""

    APPEND = 13
    RAGGED_PREFILL = 15
    PAGED_PREFILL = 16
    DECODE = 17
    MERGE_STATES = 23
    SPLIT_ROTARY = 24
    COPY_PAGE = 25
    READ_PAGES = 26
    COMPACT_PAGES = 27


_NAMED_BACKEND_SLOTS = (Slot.RAGGED_PREFILL, Slot.PAGED_PREFILL, Slot.DECODE)
"""These hold a tuple (backend name, function); `MERGE_STATES` holds a tuple of functions."""


@dataclass(frozen=True)
class AttentionCall:
    """One attention call of the model: which layer, with which scale."""

    layer_id: int
    sm_scale: float


def _packed_name(call: relax.Call) -> str | None:
    """The packed function a `call_pure_packed`-like or direct extern call invokes."""
    if isinstance(call.op, relax.ExternFunc):
        return str(call.op.global_symbol)
    if call.args and isinstance(call.args[0], relax.ExternFunc):
        return str(call.args[0].global_symbol)
    return None


@visitor
class _Finder(PyExprVisitor):
    def __init__(self) -> None:
        super().__init__()
        self.creations: list[relax.Call] = []
        self.attention: list[AttentionCall] = []

    def visit_call_(self, call: relax.Call) -> None:
        super().visit_call_(call)
        name = _packed_name(call)
        if name == CREATE_BUILTIN:
            self.creations.append(call)
        elif name == ATTENTION_BUILTIN:
            _, layer_id, sm_scale, _ = call.args[1].fields
            self.attention.append(AttentionCall(int(layer_id.value), float(sm_scale.value)))


def attention_calls(function: relax.Function) -> tuple[AttentionCall, ...]:
    """The attention calls of one Relax function, in order."""
    finder = _Finder()
    finder.visit_expr(function)
    return tuple(finder.attention)


def find_creation(module: tvm.IRModule) -> tvm.ir.GlobalVar:
    """The one function that creates the KV cache.

    Raises `CompileError`, by name, for caches whose attention isn't plain multi-head or
    grouped-query attention (MLA, sliding window), and if there is none or more than one.
    """
    found: list[tuple[tvm.ir.GlobalVar, relax.Call]] = []
    for global_var, function in module.functions_items():
        if isinstance(function, relax.Function):
            finder = _Finder()
            finder.visit_expr(function)
            found += [(global_var, call) for call in finder.creations]
    if len(found) != 1:
        raise CompileError(
            f"expected one call of {CREATE_BUILTIN} in the model, found {len(found)}"
        )
    global_var, call = found[0]
    arguments = _creation_arguments(call)
    if len(arguments) != _NUM_CREATE_ARGUMENTS:
        raise CompileError(
            f"expected {_NUM_CREATE_ARGUMENTS} arguments of {CREATE_BUILTIN} (TVM 0.26), "
            f"got {len(arguments)}: this model was made for another TVM"
        )
    kinds = [int(kind) for kind in arguments[_ATTENTION_KINDS_ARGUMENT].values]
    if any(kind != _MHA_KIND for kind in kinds):
        names = {1: "MLA", 2: "linear attention", 3: "sliding-window"}
        bad = {names.get(kind, f"kind {kind}") for kind in kinds if kind != _MHA_KIND}
        raise CompileError(
            f"shadowAttn needs plain MHA/GQA attention in every layer; this model has "
            f"{', '.join(sorted(bad))} layers"
        )
    return global_var


def _creation_arguments(call: relax.Call) -> list[relax.Expr]:
    return list(call.args) if isinstance(call.op, relax.ExternFunc) else list(call.args[1:])


def slot_function(module: tvm.IRModule, slot: Slot) -> tvm.ir.GlobalVar:
    """The PrimFunc that `slot` holds now."""
    argument = _slot_argument(module, slot)
    assert isinstance(argument, tvm.ir.GlobalVar), f"slot {slot.name} holds {argument}"
    return argument


def slot_name(module: tvm.IRModule, slot: Slot) -> str:
    """The name of the function that `slot` holds now, be it the module's or an external one."""
    argument = _slot_argument(module, slot)
    if isinstance(argument, relax.ExternFunc):
        return str(argument.global_symbol)
    return str(argument.name_hint)


def _slot_argument(module: tvm.IRModule, slot: Slot) -> relax.Expr:
    finder = _Finder()
    finder.visit_expr(module[find_creation(module)])
    argument = _creation_arguments(finder.creations[0])[slot]
    if isinstance(argument, relax.Tuple):
        argument = argument.fields[-1]
    return argument


@mutator
class _SlotReplacer(PyExprMutator):
    def __init__(self, module: tvm.IRModule, kernels: Mapping[Slot, relax.Expr]) -> None:
        super().__init__(module)
        self.kernels = kernels
        self.replaced: list[Slot] = []

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if _packed_name(call) != CREATE_BUILTIN:
            return super().visit_call_(call)
        arguments = list(call.args)
        first = len(arguments) - len(_creation_arguments(call))
        for slot, kernel in self.kernels.items():
            if slot in _NAMED_BACKEND_SLOTS:
                replacement: relax.Expr = relax.Tuple([relax.StringImm("tirx"), kernel])
            elif slot is Slot.MERGE_STATES:
                replacement = relax.Tuple([kernel])
            else:
                replacement = kernel
            arguments[first + slot] = replacement
            self.replaced.append(slot)
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)


@mutator
class _StoredHeadsSetter(PyExprMutator):
    def __init__(self, module: tvm.IRModule, stored_heads: int) -> None:
        super().__init__(module)
        self.stored_heads = stored_heads

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if _packed_name(call) != CREATE_BUILTIN:
            return super().visit_call_(call)
        arguments = list(call.args)
        first = len(arguments) - len(_creation_arguments(call))
        arguments[first + _KV_HEADS_ARGUMENT] = relax.prim_value(self.stored_heads)
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)


def set_stored_heads(module: tvm.IRModule, stored_heads: int) -> tvm.IRModule:
    """Let the KV cache have so many head rows in each plane of its pages.

    Every kernel that takes pages, and every attention call's projection, must follow.
    """
    creation = find_creation(module)
    setter = _StoredHeadsSetter(module, stored_heads)
    setter.builder_.update_func(creation, setter.visit_expr(module[creation]))
    return setter.builder_.get()


def replace_slots(
    module: tvm.IRModule, kernels: Mapping[Slot, tuple[str, tirx.PrimFunc]]
) -> tvm.IRModule:
    """Put `kernels` (slot -> (name, PrimFunc)) where the KV cache is created.

    Names become symbols of the library; each must be new. Asserts that every slot was replaced,
    and removes the kernels that were there before.
    """
    before = [slot_function(module, slot) for slot in kernels]
    builder = relax.BlockBuilder(module)
    global_vars = {}
    for slot, (name, kernel) in kernels.items():
        assert name not in {gv.name_hint for gv in module.get_global_vars()}, name
        global_vars[slot] = builder.add_func(kernel.with_attr("global_symbol", name), name)
    return _fill_slots(builder.get(), global_vars, before)


def open_slots(module: tvm.IRModule, names: Mapping[Slot, str]) -> tvm.IRModule:
    """Put packed functions, looked up by `names` when the library is loaded, where the KV cache is
    created, and remove the kernels that were there before."""
    before = [slot_function(module, slot) for slot in names]
    return _fill_slots(
        module, {slot: relax.ExternFunc(name) for slot, name in names.items()}, before
    )


def _fill_slots(
    module: tvm.IRModule,
    functions: Mapping[Slot, relax.Expr],
    before: Sequence[tvm.ir.GlobalVar],
) -> tvm.IRModule:
    """`module` with `functions` in the slots and without the kernels `before`."""
    creation = find_creation(module)
    replacer = _SlotReplacer(module, functions)
    replacer.builder_.update_func(creation, replacer.visit_expr(module[creation]))
    assert set(replacer.replaced) == set(functions), (replacer.replaced, functions)
    module = replacer.builder_.get()
    dropped = {global_var.name_hint for global_var in before}
    return tvm.IRModule(
        {gv: function for gv, function in module.functions_items() if gv.name_hint not in dropped},
        attrs=module.attrs,
    )
