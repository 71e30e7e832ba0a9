"""What a compiled library says about itself: the JSON its `_metadata` function returns.

The only place that knows the keys. MLC's other keys are passed over.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tir_kernels.constants import RATIO_ONE


class _Metadata(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ParameterMetadata(_Metadata):
    """One parameter the library's functions take, in their order.

    Attributes
    ----------
    shape : extents; in libraries MLC-LLM compiled also names, where any extent is taken.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def takes(self, shape: tuple[int, ...], dtype: str) -> bool:
        """Whether a tensor of this shape and dtype fits."""
        return (
            dtype == self.dtype
            and len(shape) == len(self.shape)
            and all(
                isinstance(expected, str) or expected == got
                for expected, got in zip(self.shape, shape, strict=True)
            )
        )


class ShadowAttnMetadata(_Metadata):
    """The plan compiled into the library.

    Attributes
    ----------
    plan_hash : see `shadowattn_tvm.plan.plan_hash`.
    k_min : the fewest past positions a sparse head keeps.
    keep_ratio_q16 : `[layer][head]`, in units of 1/65536; dense layers hold 65536.
    """

    plan_hash: str
    k_min: Annotated[int, Field(ge=1)]
    keep_ratio_q16: tuple[tuple[Annotated[int, Field(ge=0, le=RATIO_ONE)], ...], ...]


class LibraryMetadata(_Metadata):
    """A library's description.

    Attributes
    ----------
    quantization : MLC's name.
    context_window_size, prefill_chunk_size : compiled limits, in tokens.
    params : the parameters, in the order the functions take them.
    weight_hash : the weights it was compiled for; None in libraries MLC-LLM compiled.
    shadow_attn : None for a dense library.
    """

    quantization: str
    context_window_size: Annotated[int, Field(ge=1)]
    prefill_chunk_size: Annotated[int, Field(ge=1)]
    params: tuple[ParameterMetadata, ...]
    weight_hash: str | None = None
    shadow_attn: ShadowAttnMetadata | None = None
