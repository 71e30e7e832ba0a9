"""A contender's process, started and asked by `process`."""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import TextIO

from ..errors import ShadowAttnError
from .memory import PeakMemory
from .messages import ContenderSettings, Failure, Ready, Reply, Request, pack_logits
from .text_model import TextModel, load_text_model

_MS_PER_S = 1e3


def answer(model: TextModel, request: Request, peak: PeakMemory) -> Reply:
    """Do what is asked, with a clock on it."""
    start_s = time.perf_counter()
    if request.action == "prefill":
        logits = model.prefill(request.token_ids)
        logits.argmax()
    else:
        for token_id in request.token_ids:
            logits = model.decode(token_id)
            logits.argmax()
    elapsed_ms = _MS_PER_S * (time.perf_counter() - start_s)
    if request.action == "decode":
        model.rollback(len(request.token_ids))
    return Reply(
        elapsed_ms=elapsed_ms, logits=pack_logits(logits), peak_memory_bytes=peak.in_bytes()
    )


def serve(requests: TextIO, answers: TextIO) -> None:
    """Load a model and answer until there are no more requests."""

    def say(message: Ready | Reply | Failure) -> None:
        answers.write(message.model_dump_json() + "\n")
        answers.flush()

    try:
        model = load_text_model(ContenderSettings.model_validate_json(requests.readline()))
        peak = PeakMemory()
        say(Ready(memory_bytes=peak.in_bytes()))
        for line in requests:
            say(answer(model, Request.model_validate_json(line), peak))
    except ShadowAttnError as error:
        say(Failure(message=str(error), mistake=True))
    except Exception:
        say(Failure(message=traceback.format_exc(), mistake=False))


def main() -> None:
    # Whatever a library prints must not end up between the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin, answers)
