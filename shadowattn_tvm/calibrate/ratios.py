"""Keep ratios from outside: a plan around an imported profile."""

from __future__ import annotations

import numpy as np

from tir_kernels.constants import RATIO_ONE

from ..plan import RatioProfile
from .allocation import Ratios
from .build_plan import Method, MethodContext
from .importance_methods import group_means


def given_ratios(profile: RatioProfile) -> Method:
    """The profile's ratios as they are, to the nearest 1/65536; with lists shared by a GQA group,
    the group's mean.

    The settings of such a calibration take `ratio` and `dense_layers` from the profile. Raises
    `PlanError` where its shape isn't the model's.
    """

    def choose(context: MethodContext) -> Ratios:
        config = context.subject.model.config
        profile.require_shape(config.num_hidden_layers, config.num_attention_heads)
        ratios = np.array(profile.keep_ratios, np.float64)
        if context.settings.sharing.gqa_group:
            ratios = group_means(ratios, config.num_key_value_heads)
        ratios[list(context.settings.dense_layers)] = 1.0
        rounded: Ratios = np.rint(ratios * RATIO_ONE).astype(np.int64)
        return rounded

    return choose
