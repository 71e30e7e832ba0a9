"""What each head and each layer is worth: the loss without it (paper, offline stage).

A head is removed by zeroing its output before the output projection. A layer is bypassed whole,
attention and MLP: what enters it leaves it. The public implementation bypasses layers so, too; its
heads are by default starved (a keep ratio of zero leaves the best key of every 32 queries) rather
than removed, which the paper's equation asks for.

Both `paper` and `ae` allocate from this measurement, for any budget. It costs layers * (heads + 1)
runs of the model, so it is kept in the cache folder by the hash of everything it depends on, after
every layer: the second method costs nothing, and an interrupted run resumes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..config.architecture import LlamaConfig
from ..config.json_layout import write_document
from ..config.paths import cache_dir
from ..corpora import Document, Window, sample_windows
from ..errors import ConfigError
from ..runtime.tokenizer import ModelTokenizer
from ..weights import ModelDirectory, model_fingerprint
from .ablation_document import Ablation, AblationInputs, LayerAblation, Loss, load_ablation
from .reference_ablation import ShortWindows
from .reference_model import ReferenceModel

DEFAULT_ABLATION_WINDOWS = 128
"""The paper's number."""

DEFAULT_ABLATION_WINDOW_TOKENS = 128
"""The public implementation's."""

_BATCH_TOKENS = 1024
"""Tokens run side by side: enough to keep the cores busy, few enough to stay in their caches."""

AblationProgress = Callable[[int, int], None]
"""Called with (layer passes done, layer passes in all); a pass is one layer over one window, so
that equal steps take equal time."""


def measure_ablation(
    directory: ModelDirectory,
    documents: Sequence[Document],
    *,
    num_windows: int = DEFAULT_ABLATION_WINDOWS,
    window_tokens: int = DEFAULT_ABLATION_WINDOW_TOKENS,
    store: Path | None = None,
    model: ReferenceModel | None = None,
    on_progress: AblationProgress | None = None,
) -> Ablation:
    """Measure a model directory, or take what was measured before with the same inputs.

    Parameters
    ----------
    num_windows, window_tokens : how much of the documents to read; shorter texts give fewer.
    store : where the measurement is kept and resumed from, a file; by default
        `ablations/KEY.json` in the cache folder (`SHADOWATTN_CACHE`).
    model : the directory's, where it is loaded already.
    on_progress : see `AblationProgress`; not called where nothing is left to do.

    Raises `ConfigError` for sizes that can't be, texts too short and a stored file that isn't this
    measurement, `WeightsError` for weights that can't be read or give no sane loss, `OutputError`
    when the store can't be written.
    """
    architecture = directory.architecture
    if not 2 <= window_tokens <= architecture.context_window_size:
        raise ConfigError(
            f"expected ablation windows of 2 to {architecture.context_window_size} tokens (the "
            f"model's context), got {window_tokens}"
        )
    windows = sample_windows(
        documents,
        ModelTokenizer.from_directory(directory.path),
        window_tokens=window_tokens,
        max_windows=num_windows,
        prefix_ids=directory.chat_config.conv_template.system_prefix_token_ids or (),
    )
    token_ids = _token_ids(windows, architecture.vocab_size, directory.path)
    inputs = AblationInputs(
        model_fingerprint=model_fingerprint(directory),
        weight_hash=directory.weight_hash,
        num_layers=architecture.num_hidden_layers,
        num_q_heads=architecture.num_attention_heads,
        num_windows=len(windows),
        window_tokens=window_tokens,
        documents_sha256=tuple(dict.fromkeys(w.document_sha256 for w in windows)),
        windows_sha256=hashlib.sha256(token_ids.numpy().astype("<i8").tobytes()).hexdigest(),
    )
    path = store or cache_dir() / "ablations" / f"{inputs.key}.json"
    done = _read(path, inputs)
    if done is not None and done.complete:
        return done
    model = model or ReferenceModel.load(directory)
    batches = [
        ShortWindows(model, ids)
        for ids in torch.split(token_ids, max(1, _BATCH_TOKENS // window_tokens))
    ]
    work = _Work(architecture, inputs, on_progress)
    with torch.inference_mode():
        return _measure(batches, inputs, done, path, work)


class _Work:
    """Counts layer passes, for progress."""

    def __init__(
        self, config: LlamaConfig, inputs: AblationInputs, on_progress: AblationProgress | None
    ) -> None:
        self._config = config
        self._windows = inputs.num_windows
        self._on_progress = on_progress
        self._done = 0

    def skip(self, layers_done: int) -> None:
        """The baseline and some layers were measured before."""
        self._done = self._total(layers_done)

    def advance(self, layers: int, windows: int, *, loss: bool) -> None:
        """Some windows have passed some layers, and perhaps the output projection."""
        self._done += windows * (layers + self._output_passes * loss)
        if self._on_progress is not None:
            self._on_progress(self._done, self._total(self._config.num_hidden_layers))

    @property
    def _output_passes(self) -> int:
        """The output projection in units of a layer, by their parameters."""
        c = self._config
        layer = c.hidden_size * (2 * c.q_size + 2 * c.kv_size + 3 * c.intermediate_size)
        return max(1, round(c.vocab_size * c.hidden_size / layer))

    def _total(self, layers_done: int) -> int:
        """Passes of the baseline and of the first `layers_done` layers' ablations."""
        num_layers, output = self._config.num_hidden_layers, self._output_passes
        passes = num_layers + output
        for layer in range(layers_done):
            suffix = num_layers - layer + output
            passes += self._config.num_attention_heads * suffix + (suffix - 1) + 1
        return passes * self._windows


def _measure(
    batches: Sequence[ShortWindows],
    inputs: AblationInputs,
    done: Ablation | None,
    path: Path,
    work: _Work,
) -> Ablation:
    """Measure the layers that `done` lacks, storing after each."""
    if done is None:
        done = Ablation(inputs=inputs, baseline=_baseline(batches, inputs, work), layers=())
        _write(done, path)
    else:
        work.skip(len(done.layers))
    first = len(done.layers)
    states = [batch.run(batch.embedded(), range(first)) for batch in batches]
    for layer in range(first, inputs.num_layers):
        measured = _ablate_layer(batches, states, layer, inputs, work)
        done = done.model_copy(update={"layers": (*done.layers, measured)})
        _write(done, path)
    return done


def _baseline(batches: Sequence[ShortWindows], inputs: AblationInputs, work: _Work) -> Loss:
    total = 0.0
    for batch in batches:
        total += batch.loss_sum(batch.run(batch.embedded(), range(inputs.num_layers)))
        work.advance(inputs.num_layers, batch.num_windows, loss=True)
    return _mean(total, batches)


def _ablate_layer(
    batches: Sequence[ShortWindows],
    states: list[Tensor],
    layer: int,
    inputs: AblationInputs,
    work: _Work,
) -> LayerAblation:
    """Every ablation of one layer, from `states` at its input, which move on to its output."""
    rest = range(layer, inputs.num_layers)
    heads = [0.0] * inputs.num_q_heads
    bypassed = 0.0
    for index, batch in enumerate(batches):
        for head in range(inputs.num_q_heads):
            heads[head] += batch.loss_sum(batch.run(states[index], rest, removed_head=head))
            work.advance(len(rest), batch.num_windows, loss=True)
        bypassed += batch.loss_sum(batch.run(states[index], rest[1:]))
        work.advance(len(rest) - 1, batch.num_windows, loss=True)
        states[index] = batch.run(states[index], rest[:1])
        work.advance(1, batch.num_windows, loss=False)
    return LayerAblation(
        bypassed=_mean(bypassed, batches), heads=tuple(_mean(total, batches) for total in heads)
    )


def _mean(total: float, batches: Sequence[ShortWindows]) -> Loss:
    return Loss.of(total / sum(batch.num_predictions for batch in batches))


def _write(ablation: Ablation, path: Path) -> None:
    write_document(path, ablation)


def _read(path: Path, inputs: AblationInputs) -> Ablation | None:
    if not path.exists():
        return None
    stored = load_ablation(path)
    if stored.inputs != inputs:
        raise ConfigError(
            f"{path}: expected a measurement of this model on these windows, got one of other "
            "inputs; choose another place or delete it"
        )
    return stored


def _token_ids(windows: Sequence[Window], vocab_size: int, where: Path) -> Tensor:
    """`[windows, tokens]` int64."""
    ids = torch.stack([torch.from_numpy(window.token_ids) for window in windows])
    if int(ids.max()) >= vocab_size:
        raise ConfigError(
            f"{where}: expected token ids below the model's vocabulary of {vocab_size}, got "
            f"{int(ids.max())} from its tokenizer; they don't belong together"
        )
    return ids
