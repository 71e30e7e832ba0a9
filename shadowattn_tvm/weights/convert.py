"""Checkpoint in, model directory out: read, check, fuse, quantize, store, block by block."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ..config.architecture import LlamaConfig
from ..config.atomic import atomic_directory
from ..config.chat_config import (
    CHAT_CONFIG_FILE,
    QUANTIZATIONS,
    ChatConfig,
    ModelDtype,
    Quantization,
    model_dtype,
)
from ..config.conversation import conversation, recognize_template
from ..config.documents import read_json_object, read_text, validated
from ..errors import ConfigError, OutputError, WeightsError
from .checkpoint import Checkpoint, check_tensors, expected_shapes, sources
from .gguf_checkpoint import GgufCheckpoint
from .group_quantize import quantize_q4
from .hf_checkpoint import TOKENIZER_FILES, HuggingFaceCheckpoint
from .layout import float_shapes, parameter_layout, quantized_names
from .model_directory import ModelDirectory, is_model_directory, open_model_directory
from .shard_writer import ShardWriter, count_elements
from .tensor_cache import TENSOR_CACHE_FILE
from .tokenizer_info import build_checked_tokenizer, detect_tokenizer_info

DEFAULT_PREFILL_CHUNK_TOKENS = 256
"""Queries attend densely within their chunk and sparsely to what is older: a long chunk would leave
nothing to save, a short one starves the matrix multiplications."""

_BLOCK_WEIGHTS = 2 << 20
"""Weights in flight, 8 MiB of float32: small beside any model, large beside the cost of a call."""

Progress = Callable[[int, int], None]
"""Called with (weights done, weights in all), counted before quantization."""


def convert_weight(
    source: Path,
    quantization: str,
    output: Path,
    *,
    progress: Progress | None = None,
    context_window_size: int | None = None,
    prefill_chunk_size: int | None = None,
    conv_template: str | None = None,
) -> ModelDirectory:
    """Convert a checkpoint to a model directory in MLC-LLM's format.

    Parameters
    ----------
    source : a .gguf file, or a Hugging Face directory (config.json, *.safetensors, tokenizer).
    quantization : one of `QUANTIZATIONS`.
    output : directory to make. One that exists is replaced if it is a model directory (files that
        are not a model's, such as compiled libraries, are kept), else it must be empty.
    progress : see `Progress`.
    context_window_size, prefill_chunk_size : compiled limits in tokens; by default the model's own
        context and `DEFAULT_PREFILL_CHUNK_TOKENS`.
    conv_template : name of a conversation template; by default recognized from the checkpoint's.

    Memory: some blocks of 8 MiB, whatever the model's size. The output appears whole or not at all.
    Raises `WeightsError`, `ConfigError` or `OutputError`.
    """
    if quantization not in QUANTIZATIONS:
        raise ConfigError(
            f"unknown quantization {quantization!r}; expected one of {', '.join(QUANTIZATIONS)}"
        )
    chosen = cast(Quantization, quantization)
    _check_places(source, output)
    checkpoint = _open_checkpoint(source)
    architecture = checkpoint.architecture.with_limits(
        context_window_size=context_window_size,
        prefill_chunk_size=prefill_chunk_size or _default_chunk(checkpoint, context_window_size),
    )
    check_tensors(checkpoint, str(source))
    replace = is_model_directory(output)
    with atomic_directory(output, replace=replace) as staged:
        checkpoint.write_tokenizer(staged)
        chat_config = _chat_config(checkpoint, architecture, chosen, staged, conv_template)
        (staged / CHAT_CONFIG_FILE).write_text(chat_config.to_json(), encoding="utf-8")
        _write_parameters(checkpoint, architecture, chosen, staged, progress)
        if replace:
            _keep_foreign_files(output, staged)
    return open_model_directory(output)


def _open_checkpoint(source: Path) -> Checkpoint:
    if source.is_dir():
        return HuggingFaceCheckpoint(source)
    if not source.exists():
        raise WeightsError(
            f"no checkpoint at {source}: expected a .gguf file or a Hugging Face directory"
        )
    return GgufCheckpoint(source)


def _default_chunk(checkpoint: Checkpoint, context_window_size: int | None) -> int:
    context = context_window_size or checkpoint.architecture.context_window_size
    return min(DEFAULT_PREFILL_CHUNK_TOKENS, context)


def _check_places(source: Path, output: Path) -> None:
    """The output must not swallow the source."""
    inner, outer = Path(os.path.realpath(source)), Path(os.path.realpath(output))
    if inner.is_relative_to(outer):
        raise OutputError(
            f"can't write to {output}: the source {source} lies in it; choose another folder"
        )


def _write_parameters(
    checkpoint: Checkpoint,
    architecture: LlamaConfig,
    quantization: Quantization,
    folder: Path,
    progress: Progress | None,
) -> None:
    layout, dtype = parameter_layout(architecture, quantization), model_dtype(quantization)
    names = float_shapes(architecture)
    rows = {name: shape[0] for name, shape in expected_shapes(architecture).items()}
    total = count_elements(names.values())
    done = 0

    def counted(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        nonlocal done
        for block in blocks:
            yield block
            done += block.size
            if progress is not None:
                progress(done, total)

    with ShardWriter(folder) as writer:
        for name, shape in names.items():
            step = _block_rows(prod(shape[1:]), architecture.head_dim)
            parts = {source: rows[source] for source in sources(name)}
            blocks = counted(_blocks(checkpoint, parts, step, dtype))
            if name in layout:
                writer.add(name, layout[name], blocks)
                continue
            weight_name, scale_name = quantized_names(name)
            scales: list[NDArray[np.floating]] = []
            writer.add(weight_name, layout[weight_name], _quantized(blocks, scales, dtype))
            writer.add(scale_name, layout[scale_name], scales)
        writer.finish(total)


def _block_rows(row_size: int, head_dim: int) -> int:
    """Rows to a block: whole heads, at least one."""
    heads = _BLOCK_WEIGHTS // (row_size * head_dim)
    return max(1, heads) * head_dim


def _blocks(
    checkpoint: Checkpoint, parts: Mapping[str, int], step: int, dtype: ModelDtype
) -> Iterator[NDArray[np.float32]]:
    """The rows of the checkpoint's tensors `parts` (name: rows), one after another, in blocks; not
    yet rounded to `dtype`, but within its range."""
    largest = np.finfo(dtype).max
    for name, num_rows in parts.items():
        for start in range(0, num_rows, step):
            block = checkpoint.read_rows(name, start, min(start + step, num_rows))
            finite = np.isfinite(block)
            if not finite.all():
                raise WeightsError(
                    f"tensor {name}: expected finite weights, got {np.count_nonzero(~finite)} NaN "
                    f"or infinite ones in rows {start} to {start + len(block) - 1}; the checkpoint "
                    "is damaged"
                )
            beyond = np.abs(block).max(initial=0.0)
            if beyond > largest:
                raise WeightsError(
                    f"tensor {name}: expected weights within {dtype}'s {largest:.0f}, got one of "
                    f"magnitude {beyond:.6g}; use a float32 quantization"
                )
            yield block


def _quantized(
    blocks: Iterable[NDArray[np.float32]], scales: list[NDArray[np.floating]], dtype: ModelDtype
) -> Iterator[NDArray[np.uint32]]:
    """Quantized blocks; their scales, an eighth of the size, are gathered in `scales`."""
    for block in blocks:
        codes, block_scales = quantize_q4(block, dtype)
        scales.append(block_scales)
        yield codes


def _chat_config(
    checkpoint: Checkpoint,
    architecture: LlamaConfig,
    quantization: Quantization,
    folder: Path,
    conv_template: str | None,
) -> ChatConfig:
    """The description, once the tokenizer's files are in `folder`."""
    path = folder / "tokenizer.json"
    tokenizer = build_checked_tokenizer(
        read_text(path, WeightsError), architecture.vocab_size, path.name
    )
    generation = checkpoint.generation
    name = conv_template or recognize_template(generation.chat_template)
    chosen = {
        "type_": architecture.model_type,
        "quantization": quantization,
        "model_config": architecture,
        "vocab_size": architecture.vocab_size,
        "context_window_size": architecture.context_window_size,
        "prefill_chunk_size": architecture.prefill_chunk_size,
        "active_vocab_size": tokenizer.get_vocab_size(with_added_tokens=True),
        "tokenizer_files": tuple(n for n in TOKENIZER_FILES if (folder / n).is_file()),
        "tokenizer_info": detect_tokenizer_info(read_json_object(path, WeightsError)),
        "conv_template": conversation(name, tokenizer.get_vocab(with_added_tokens=True)),
        "bos_token_id": generation.bos_token_id,
        "eos_token_id": generation.eos_token_id,
        "pad_token_id": generation.pad_token_id,
        **generation.sampling,
    }
    return validated(ChatConfig, chosen, "the checkpoint's generation settings")


def _keep_foreign_files(old: Path, staged: Path) -> None:
    """Copy what is not a model's own (a library compiled into the folder) from `old`."""
    for entry in old.iterdir():
        ours = entry.name in (*TOKENIZER_FILES, CHAT_CONFIG_FILE) or entry.name.startswith(
            (TENSOR_CACHE_FILE.removesuffix(".json"), "params_shard_")
        )
        if ours:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, staged / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, staged / entry.name, follow_symlinks=False)
