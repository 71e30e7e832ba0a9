"""The uniform plan: measured scales, and one keep ratio for every head that isn't dense."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from ..corpora import Document, Window, sample_windows
from ..errors import ConfigError
from ..plan import BucketGrid, CorpusDocument, HeadPlan, LayerPlan, Plan, PlannedModel, Provenance
from ..runtime.tokenizer import ModelTokenizer
from ..weights import ModelDirectory, model_fingerprint
from .reference_model import ReferenceModel
from .scales import HeadScales, ProgressCallback, measure_scales

DEFAULT_WINDOW_TOKENS = 1024
"""Long enough for pasts of several chunks."""

DEFAULT_NUM_WINDOWS = 8
"""On SmolLM2-135M twice as many move no scale by more than 5 %, a fraction of a bucket."""

DEFAULT_SIGMA = 0.5
"""The paper's step of the bucket grid."""

DEFAULT_K_MIN = 64
"""Short pasts stay exact: there sparsity saves next to nothing."""

DEFAULT_DENSE_LAYERS = (0,)
"""The first layer attends diffusely: at the same budget, leaving it dense costs less accuracy than
thinning it out with the others."""

_SCALE_DIGITS = 6
"""Significant digits of a scale in a plan: finer than INT8 can tell apart, coarse enough that
machines that round their float32 sums differently write the same plan."""


def calibrate_uniform(
    directory: ModelDirectory,
    ratio: float,
    documents: Sequence[Document],
    *,
    sigma: float = DEFAULT_SIGMA,
    dense_layers: Sequence[int] = DEFAULT_DENSE_LAYERS,
    k_min: int = DEFAULT_K_MIN,
    window_tokens: int | None = None,
    num_windows: int = DEFAULT_NUM_WINDOWS,
    prefill_chunk_tokens: int | None = None,
    on_progress: ProgressCallback | None = None,
) -> Plan:
    """Calibrate a model directory with the same keep ratio for every head of a sparse layer.

    Parameters
    ----------
    ratio : the past fraction over all layers and heads, dense layers included.
    sigma : step of the bucket grid.
    dense_layers : indices of layers computed exactly.
    k_min : the fewest past positions a sparse head keeps.
    window_tokens, num_windows : how much of the corpus to read, 1024 tokens a window or the model's
        whole context if that is shorter; a shorter corpus gives fewer windows.
    prefill_chunk_tokens : tokens prefilled together, whose queries share a scale. None takes the
        model directory's setting, or half a window if that is less.
    on_progress : called after each window.

    Raises `ConfigError` for settings that can't be and a corpus too short for one window (both
    before the model runs), `WeightsError` for weights that can't be read or yield no sane scales.
    """
    architecture = directory.architecture
    keep_ratio = sparse_keep_ratio(ratio, architecture.num_hidden_layers, dense_layers)
    if not 0.0 < sigma < 1.0:
        raise ConfigError(f"expected a bucket step sigma between 0 and 1, got {sigma}")
    if k_min < 1:
        raise ConfigError(f"expected k_min of at least 1 position, got {k_min}")
    context_tokens = architecture.context_window_size
    if window_tokens is None:
        window_tokens = min(DEFAULT_WINDOW_TOKENS, context_tokens)
    elif not 2 <= window_tokens <= context_tokens:
        raise ConfigError(
            f"expected windows of 2 to {context_tokens} tokens (the model's context), got "
            f"{window_tokens}"
        )
    if prefill_chunk_tokens is None:
        prefill_chunk_tokens = min(directory.chat_config.prefill_chunk_size, window_tokens // 2)
    windows = sample_windows(
        documents,
        ModelTokenizer.from_directory(directory.path),
        window_tokens=window_tokens,
        max_windows=num_windows,
        prefix_ids=directory.chat_config.conv_template.system_prefix_token_ids or (),
    )
    largest_id = max(int(window.token_ids.max()) for window in windows)
    if largest_id >= architecture.vocab_size:
        raise ConfigError(
            f"{directory.path}: expected token ids below the model's vocabulary of "
            f"{architecture.vocab_size}, got {largest_id} from its tokenizer; they don't belong "
            "together"
        )
    scales = measure_scales(
        ReferenceModel.load(directory),
        windows,
        prefill_chunk_tokens=prefill_chunk_tokens,
        on_progress=on_progress,
    )
    return Plan(
        model=PlannedModel(
            name=directory.path.name,
            fingerprint=model_fingerprint(directory),
            num_layers=architecture.num_hidden_layers,
            num_q_heads=architecture.num_attention_heads,
            num_kv_heads=architecture.num_key_value_heads,
            head_dim=architecture.head_dim,
        ),
        buckets=BucketGrid(sigma=sigma),
        k_min=k_min,
        layers=tuple(
            _layer_plan(scales, layer, layer in dense_layers, keep_ratio)
            for layer in range(architecture.num_hidden_layers)
        ),
        provenance=Provenance(
            method="uniform",
            ratio=ratio,
            corpus=corpus_read(windows),
            window_tokens=window_tokens,
            num_windows=len(windows),
            prefill_chunk_tokens=prefill_chunk_tokens,
            created=datetime.now(UTC).replace(microsecond=0),
            tool_version=version("shadowattn-tvm"),
        ),
    )


def sparse_keep_ratio(ratio: float, num_layers: int, dense_layers: Sequence[int]) -> float:
    """The keep ratio of the sparse layers that makes the past fraction over all layers `ratio`.

    Raises `ConfigError` when there is none: a ratio outside 0..1, layers that don't exist or are
    named twice, dense layers that alone take more than the whole budget, or nothing but dense
    layers and a ratio below 1.
    """
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError(f"expected a ratio between 0 and 1, got {ratio}")
    if len(set(dense_layers)) < len(dense_layers) or not set(dense_layers) <= set(
        range(num_layers)
    ):
        raise ConfigError(
            f"expected different dense layers between 0 and {num_layers - 1}, got "
            f"{', '.join(map(str, dense_layers))}"
        )
    num_dense = len(dense_layers)
    if ratio < num_dense / num_layers:
        smallest = math.ceil(num_dense / num_layers * 1e4) / 1e4  # rounded up, so that it works
        raise ConfigError(
            f"expected a ratio of at least {smallest}: {num_dense} of "
            f"{num_layers} layers are dense and count in full, got {ratio}; raise the ratio or "
            "name fewer dense layers"
        )
    if num_dense == num_layers:
        return 1.0
    share = (ratio * num_layers - num_dense) / (num_layers - num_dense)
    return min(max(share, 0.0), 1.0)  # rounding may step over either end


def corpus_read(windows: Sequence[Window]) -> tuple[CorpusDocument, ...]:
    """The documents that windows were taken from, each once, for a plan's provenance."""
    by_hash = {window.document_sha256: window.document for window in windows}
    return tuple(CorpusDocument(name=name, sha256=sha256) for sha256, name in by_hash.items())


def _layer_plan(scales: HeadScales, layer: int, dense: bool, keep_ratio: float) -> LayerPlan:
    q_scales, k_scales = scales.q.mean[layer], scales.k.mean[layer]
    group = len(q_scales) // len(k_scales)
    return LayerPlan(
        dense=dense,
        heads=tuple(
            HeadPlan(
                q_scale=_round_scale(q_scale),
                k_scale=_round_scale(k_scales[head // group]),
                keep_ratio=1.0 if dense else keep_ratio,
            )
            for head, q_scale in enumerate(q_scales)
        ),
    )


def _round_scale(scale: float) -> float:
    return float(f"{scale:.{_SCALE_DIGITS}g}")
