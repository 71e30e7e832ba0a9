"""Dense attention for the runtime's paged KV cache, on CPUs: the kernels of its slots."""

from .append import append
from .dense_paged_decode import dense_paged_decode
from .dense_paged_prefill import dense_paged_prefill
from .dense_ragged_prefill import dense_ragged_prefill
from .merge_states import merge_states

__all__ = [
    "append",
    "dense_paged_decode",
    "dense_paged_prefill",
    "dense_ragged_prefill",
    "merge_states",
]
