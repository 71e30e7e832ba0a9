"""What a user chooses for a calibration, whatever the method."""

from __future__ import annotations

from dataclasses import dataclass, field

from tir_kernels.spec import Rest, query_strides

from ..errors import ConfigError
from ..plan import BucketGrid, Pilot, Sharing

DEFAULT_WINDOW_TOKENS = 2048
"""Pasts of several chunks, as long as the prompts that sparsity is for."""

DEFAULT_K_MIN = 16
"""Few enough that a head which hardly looks back costs little: on SmolLM2-135M at 10 % of the past,
32 raises the predicted loss by 6 %, 64 by 40 %, and 1 lowers it by 8 %."""


@dataclass(frozen=True)
class CalibrationSettings:
    """Settings all methods share.

    Attributes
    ----------
    ratio : the budget: the past fraction over windows of `window_tokens` prefilled in chunks,
        with dense layers and k_min inside it.
    k_min : the fewest past positions a sparse head keeps.
    dense_layers : indices of layers computed exactly.
    buckets, pilot, sharing, rest : as in the plan.
    num_windows, window_tokens : how much of the corpus to read, 2048 tokens a window or the model's
        context if that is shorter; a shorter corpus gives fewer windows.
    prefill_chunk_tokens : tokens prefilled together, whose queries share a scale. None takes the
        model directory's setting, or half a window if that is less.
    voting_fraction : of the queries that share lists, so many vote on them, over all sparse heads.
    requant_percentile, requant_margin : the static factor of scores is this percentile of the
        observed ones, less this part of it.
    """

    ratio: float
    k_min: int = DEFAULT_K_MIN
    dense_layers: tuple[int, ...] = ()
    buckets: BucketGrid = field(default_factory=lambda: BucketGrid(sigma=0.5))
    pilot: Pilot = field(default_factory=Pilot)
    sharing: Sharing = field(default_factory=Sharing)
    rest: Rest = "dropped"
    num_windows: int = 8
    window_tokens: int | None = None
    prefill_chunk_tokens: int | None = None
    requant_percentile: float = 5.0
    requant_margin: float = 0.03
    voting_fraction: float = 1.0

    def __post_init__(self) -> None:
        """Raises `ConfigError` for what can't be, whatever the model."""
        if not 0.0 <= self.ratio <= 1.0:
            raise ConfigError(f"expected a ratio between 0 and 1, got {self.ratio}")
        if self.k_min < 1:
            raise ConfigError(f"expected k_min of at least 1 position, got {self.k_min}")
        if not 0.0 <= self.requant_percentile <= 100.0:
            raise ConfigError(
                f"expected a requantization percentile of 0 to 100, got {self.requant_percentile}"
            )
        if not 0.0 <= self.requant_margin < 1.0:
            raise ConfigError(
                f"expected a requantization margin of 0 or more, below 1, got {self.requant_margin}"
            )
        if not 0.0 < self.voting_fraction <= 1.0:
            raise ConfigError(
                f"expected a fraction of voters above 0, up to 1, got {self.voting_fraction}"
            )
        fewest = 1 / self.candidate_strides[-1]
        if self.voting_fraction < fewest:
            raise ConfigError(
                f"expected at least a fraction of {fewest} to vote on lists of "
                f"{self.sharing.query_block} queries, got {self.voting_fraction}"
            )
        if self.sharing.pooled and self.pilot.score_bits == 32:
            raise ConfigError(
                f"expected 8 or 9 score bits, from which shared lists are pooled, got "
                f"{self.pilot.score_bits}: add --score-bits 9 or share no lists"
            )

    @property
    def candidate_strides(self) -> tuple[int, ...]:
        """What a head may have for a stride, ascending."""
        return query_strides(self.sharing.query_block)

    @property
    def measured_strides(self) -> tuple[int, ...]:
        """Of these, what costs are measured for."""
        return self.candidate_strides if self.voting_fraction < 1.0 else (1,)
