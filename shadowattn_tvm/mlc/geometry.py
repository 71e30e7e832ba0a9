"""What MLC's traced model says about its attention, and refusals of what our kernels don't do."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprVisitor, visitor
from tvm.relax.frontend.nn.llm.kv_cache import RopeMode

from tir_kernels.rotary import Llama3Scaling
from tir_kernels.spec import AttentionSpec, SpecError, StorageDtype

from ..errors import CompileError
from ..transform.kv_cache_slots import ATTENTION_BUILTIN, attention_calls

CREATION_FUNCTION = "create_paged_kv_cache"
"""MLC's name for the function that makes the cache, until its pipeline says with which kernels."""

_OTHER_STATE = "create_rnn_state"
_CACHE_BUILTINS = "vm.builtin.attention_kv_cache_"
_HARMLESS_BUILTINS = (
    ATTENTION_BUILTIN,
    "vm.builtin.attention_kv_cache_get_query_positions",
)


@dataclass(frozen=True)
class Geometry:
    """The attention of a traced model.

    Attributes
    ----------
    num_layers : layers of the cache.
    attention : heads, width, softmax scale and storage type.
    rope_theta, rope_scaling : its rotary embedding, where our kernel has that kind; else None, and
        MLC's own kernel stays.
    """

    num_layers: int
    attention: AttentionSpec
    rope_theta: float | None
    rope_scaling: Llama3Scaling | None


def model_geometry(module: tvm.IRModule) -> Geometry:
    """Read the attention of a model that MLC has traced and not yet lowered.

    Raises `CompileError`, with the reason, for everything but plain MHA/GQA attention through the
    paged KV cache.
    """
    functions = {gv.name_hint: function for gv, function in module.functions_items()}
    if CREATION_FUNCTION not in functions:
        raise CompileError(f"{_NEEDS}; this one makes no such cache")
    if _OTHER_STATE in functions:
        raise CompileError(f"{_NEEDS}; this one mixes it with recurrent layers")
    dispatch = importlib.import_module("mlc_llm.compiler_pass.dispatch_kv_cache_creation")
    creation = dispatch.extract_creation_args(functions[CREATION_FUNCTION])
    _require_plain(creation)
    _require_known_builtins(module)
    rope_theta, rope_scaling = _rotary(creation)
    try:
        attention = AttentionSpec(
            num_q_heads=int(creation["num_attention_heads"]),
            num_kv_heads=int(creation["num_key_value_heads"]),
            head_dim=int(creation["qk_head_dim"]),
            sm_scale=_softmax_scale(module),
            dtype=cast(StorageDtype, str(creation["dtype"])),  # checked by the spec
        )
        return Geometry(
            num_layers=int(creation["num_hidden_layers"]),
            attention=attention,
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
        )
    except SpecError as error:
        raise CompileError(f"our kernels can't compute this model's attention: {error}") from None


_NEEDS = "shadowAttn needs a model that attends through the paged KV cache in every layer"


def _require_plain(creation: Mapping[str, Any]) -> None:
    kinds = creation["attn_kind"]
    named = {"mla": "multi-head latent attention (MLA)", "mha_sliding": "sliding-window attention"}
    bad = sorted({named.get(kind, kind) for kind in _as_list(kinds) if kind != "mha"})
    if bad:
        raise CompileError(
            f"shadowAttn needs plain MHA/GQA attention in every layer; this model has "
            f"{' and '.join(bad)}"
        )
    if creation["qk_head_dim"] != creation["v_head_dim"]:
        raise CompileError(
            "shadowAttn needs keys and values of one width; this model's have "
            f"{creation['qk_head_dim']} and {creation['v_head_dim']}"
        )
    if creation["rope_mode"] == RopeMode.INLINE:
        raise CompileError(
            "shadowAttn needs keys that are rotated before they are cached; this model rotates "
            "them in its attention kernels (RopeMode.INLINE)"
        )
    if creation["enable_disaggregation"]:
        raise CompileError("shadowAttn can't be compiled with disaggregation")


def _require_known_builtins(module: tvm.IRModule) -> None:
    found: set[str] = set()
    for _, function in module.functions_items():
        if isinstance(function, relax.Function):
            finder = _ExternFinder()
            finder.visit_expr(function)
            found |= finder.names
    others = {name for name in found if name.startswith(_CACHE_BUILTINS)} - {*_HARMLESS_BUILTINS}
    if others:
        raise CompileError(
            "shadowAttn needs plain MHA/GQA attention in every layer; this model also calls "
            f"{', '.join(sorted(others))}"
        )


@visitor
class _ExternFinder(PyExprVisitor):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def visit_extern_func_(self, extern: relax.ExternFunc) -> None:
        self.names.add(str(extern.global_symbol))


def _softmax_scale(module: tvm.IRModule) -> float:
    """The one scale of all attention calls."""
    scales = {
        call.sm_scale
        for _, function in module.functions_items()
        if isinstance(function, relax.Function)
        for call in attention_calls(function)
    }
    if len(scales) != 1:
        raise CompileError(
            f"shadowAttn needs one softmax scale in all layers, this model has {sorted(scales)}"
        )
    return scales.pop()


def _rotary(creation: Mapping[str, Any]) -> tuple[float | None, Llama3Scaling | None]:
    """Base and scaling, if `tir_kernels.rotary` has this embedding; else no base."""
    scaling = creation["rope_scaling"] or {}
    kind = scaling.get("rope_type")
    plain = (
        creation["rope_mode"] == RopeMode.NORMAL
        and creation["rope_scale"] == 1
        and creation["rotary_dim"] == creation["qk_head_dim"]
    )
    if not plain or kind not in (None, "llama3"):
        return None, None
    theta = float(creation["rope_theta"])
    if kind is None:
        return theta, None
    return theta, Llama3Scaling(
        factor=scaling["factor"],
        low_freq_factor=scaling["low_freq_factor"],
        high_freq_factor=scaling["high_freq_factor"],
        original_max_position_embeddings=scaling["original_max_position_embeddings"],
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
