"""The uniform allocation: one keep ratio for every head that isn't dense."""

from __future__ import annotations

import numpy as np

from .allocation import Ratios, scale_to_budget
from .build_plan import MethodContext

UNIFORM_DENSE_LAYERS = (0,)
"""What `uniform` leaves dense by default. The first layer attends diffusely: at the same budget,
that costs less accuracy than thinning it out with the others."""


def uniform_ratios(context: MethodContext) -> Ratios:
    """The `Method` of `--method uniform`."""
    config = context.subject.directory.architecture
    shape = (config.num_hidden_layers, config.num_attention_heads)
    return scale_to_budget(
        np.ones(shape), context.settings.ratio, context.settings.dense_layers, context.budget
    )
