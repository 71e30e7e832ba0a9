"""The smallest module with a KV cache creation and attention calls: what the attach passes see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tvm
from tvm import relax, tirx

from shadowattn_tvm.transform.kv_cache_slots import ATTENTION_BUILTIN, CREATE_BUILTIN, Slot

NUM_ARGUMENTS = 28
KINDS_ARGUMENT = 6
NUM_HEADS, HEAD_DIM = 4, 64

KernelByName = tuple[str, tirx.PrimFunc]


def marked_kernel(mark: int) -> tirx.PrimFunc:
    """A PrimFunc that is structurally different for each mark."""
    return tirx.PrimFunc([], tirx.Evaluate(tirx.const(mark, "int32")))


def attention_module(
    kernels: Mapping[Slot, KernelByName],
    *,
    layers: Sequence[tuple[int, float]] = ((0, 0.125), (1, 0.125)),
    kinds: Sequence[int] = (0, 0),
    extra_arguments: int = 0,
) -> tvm.IRModule:
    """`create` makes a cache with a marked kernel in every slot not given in `kernels`; `prefill`
    attends once per (layer id, scale argument) of `layers`."""
    builder = relax.BlockBuilder()
    stock = {slot: (f"stock_{slot.name.lower()}", marked_kernel(slot)) for slot in Slot}
    functions = {
        slot: builder.add_func(kernel.with_attr("global_symbol", name), name)
        for slot, (name, kernel) in (stock | dict(kernels)).items()
    }
    arguments: list[relax.Expr] = [
        relax.prim_value(i) for i in range(NUM_ARGUMENTS + extra_arguments)
    ]
    arguments[KINDS_ARGUMENT] = relax.ShapeExpr(list(kinds))
    for slot in (Slot.RAGGED_PREFILL, Slot.PAGED_PREFILL, Slot.DECODE):
        arguments[slot] = relax.Tuple([relax.StringImm("tirx"), functions[slot]])
    arguments[Slot.MERGE_STATES] = relax.Tuple([functions[Slot.MERGE_STATES]])
    for slot in (
        Slot.APPEND,
        Slot.SPLIT_ROTARY,
        Slot.COPY_PAGE,
        Slot.READ_PAGES,
        Slot.COMPACT_PAGES,
    ):
        arguments[slot] = functions[slot]
    with builder.function("create", []):
        cache = builder.emit(
            relax.call_pure_packed(CREATE_BUILTIN, *arguments, ty_args=relax.AnyType())
        )
        builder.emit_func_output(cache)
    _add_prefill(builder, layers)
    return builder.finalize()


def _add_prefill(builder: relax.BlockBuilder, layers: Sequence[tuple[int, float]]) -> None:
    qkv = relax.Var("qkv", relax.TensorType((8, 3 * NUM_HEADS, HEAD_DIM), "float32"))
    cache = relax.Var("cache", relax.AnyType())
    with builder.function("prefill", [qkv, cache]):
        outputs = [
            builder.emit(
                relax.call_dps_packed(
                    ATTENTION_BUILTIN,
                    [cache, relax.prim_value(layer), relax.prim_value(scale), qkv],
                    out_ty=relax.TensorType((8, NUM_HEADS, HEAD_DIM), "float32"),
                )
            )
            for layer, scale in layers
        ]
        builder.emit_func_output(relax.Tuple(outputs))
