"""What shadowAttn is compared with: the paper's baselines, and a control, as attention
implementations in NumPy that run inside the compiled model."""

from .block_sparse import BlockSparse
from .full import Full
from .npu_full import NpuFull
from .recency import RecencyOnly
from .selective import with_uniform_ratio
from .shadow_twin import ShadowTwin
from .sparse_float import SparseFloat
from .static_scales import ScaleObserver, StaticScales

__all__ = [
    "BlockSparse",
    "Full",
    "NpuFull",
    "RecencyOnly",
    "ScaleObserver",
    "ShadowTwin",
    "SparseFloat",
    "StaticScales",
    "with_uniform_ratio",
]
