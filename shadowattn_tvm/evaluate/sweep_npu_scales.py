"""Static scales of NPU-Full, from the same texts that plans are calibrated on."""

from __future__ import annotations

from ..compiler.kernel_parameters import attention_spec
from ..corpora import sample_windows
from ..runtime.tokenizer import ModelTokenizer
from .baselines import ScaleObserver, StaticScales
from .sweep_cache import digest_of
from .sweep_context import SweepContext
from .sweep_points import window_identity


def npu_scales(context: SweepContext) -> StaticScales:
    """The largest magnitudes over `context.calibration_windows` windows; measured once, then from
    `context.cache`. Raises `ConfigError` for texts too short."""
    directory, source = context.directory, context.plan.provenance
    windows = sample_windows(
        context.calibration,
        ModelTokenizer.from_directory(directory.path),
        window_tokens=min(source.window_tokens, context.model.session.context_window_tokens),
        max_windows=context.calibration_windows,
        prefix_ids=directory.chat_config.conv_template.system_prefix_token_ids or (),
    )
    key = digest_of(
        "npu scales",
        directory.weight_hash,
        context.model.session.prefill_chunk_tokens,
        [window_identity(window) for window in windows],
    )
    layers = directory.architecture.num_hidden_layers
    flat = context.cache.get(key)
    if flat is None:
        observer = ScaleObserver(attention_spec(directory.architecture), layers)
        context.model.use(observer)
        for number, window in enumerate(windows):
            context.progress("calibrate NPU-Full", number, len(windows))
            context.model.session.reset()
            context.model.session.prefill(window.token_ids.tolist())
        measured = observer.scales()
        flat = [*measured.q, *measured.k, *measured.v]
        context.cache.put(key, flat)
    return StaticScales(
        q=tuple(flat[:layers]), k=tuple(flat[layers : 2 * layers]), v=tuple(flat[2 * layers :])
    )
