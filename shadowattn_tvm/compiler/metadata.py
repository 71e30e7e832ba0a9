"""What a library says about itself: MLC's metadata, and ours beside it.

MLC's engine ignores keys it doesn't know, so ours are safe there:
- `weight_hash`: the weights the library was compiled for;
- `shadow_attn`: null for a dense library, else `plan_hash`, `k_min` and `keep_ratio_q16`
  [layer][query head], from which the fraction of positions kept follows exactly; and `decode`,
  "sparse", where it is;
- `tuned_tiles`: by kernel, the tile sizes that replace hand-chosen ones.
"""

from __future__ import annotations

from typing import Any

from tvm.relax.frontend import nn

from tir_kernels.features import TunedTile
from tir_kernels.spec import ShadowSpec

from ..config.architecture import LlamaConfig
from ..plan import Plan, plan_hash
from ..weights import ModelDirectory


def library_metadata(
    directory: ModelDirectory,
    architecture: LlamaConfig,
    parameters: tuple[tuple[str, nn.Parameter], ...],
    plan: Plan | None,
    shadow: ShadowSpec | None,
    tuned: tuple[TunedTile, ...] = (),
) -> dict[str, Any]:
    """The `_metadata` object, without `memory_usage`; `architecture` has the library's limits."""
    return {
        "model_type": directory.chat_config.type_,
        "quantization": directory.quantization,
        "context_window_size": architecture.context_window_size,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "prefill_chunk_size": architecture.prefill_chunk_size,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "disaggregation": False,
        "kv_state_kind": "kv_cache",
        "max_batch_size": architecture.max_batch_size,
        "model_task": "chat",
        "params": [
            {
                "name": name,
                "shape": [int(extent) for extent in parameter.shape],
                "dtype": str(parameter.dtype),
                "preprocs": [],
                "pipeline_stages": [0],
            }
            for name, parameter in parameters
        ],
        "weight_hash": directory.weight_hash,
        "shadow_attn": None if plan is None or shadow is None else shadow_metadata(plan, shadow),
        "tuned_tiles": {tile.kernel: dict(tile.sizes) for tile in tuned},
    }


def shadow_metadata(plan: Plan, shadow: ShadowSpec) -> dict[str, Any]:
    """The `shadow_attn` object of a library compiled with a plan."""
    described = {
        "plan_hash": plan_hash(plan),
        "k_min": shadow.k_min,
        "keep_ratio_q16": [[head.keep_ratio_q16 for head in layer] for layer in shadow.heads],
    }
    return described | ({"decode": plan.decode} if plan.decode == "sparse" else {})
