"""The commands in the order a user meets them, and what becomes of errors."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.markup import escape

from tir_kernels.parsing import remember_evaluated_code

from ..errors import ShadowAttnError
from .bench import bench_app
from .bench_models import decode, prefill
from .calibrate import calibrate
from .chat import chat
from .compile import compile_command
from .convert_weight import convert_weight
from .device import device_app
from .doctor import doctor
from .evaluate import eval_command
from .fetch import fetch
from .mlc_llm import PASS_THROUGH, mlc_llm
from .plan import plan_app
from .trace import trace
from .tune import tune_command

EXIT_USER_MISTAKE = 2

app = typer.Typer(
    name="shadowattn",
    help="shadowAttn on Apache TVM: weights -> calibrate -> plan -> compile -> library -> chat.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(fetch)
app.command("convert_weight")(convert_weight)
app.command()(calibrate)
app.add_typer(plan_app, name="plan")
app.command("tune")(tune_command)
app.command("compile")(compile_command)
app.command()(chat)
app.command("eval")(eval_command)
bench_app.command()(prefill)
bench_app.command()(decode)
app.add_typer(bench_app, name="bench")
app.command()(trace)
app.add_typer(device_app, name="device")
app.command()(doctor)
app.command("mlc_llm", context_settings=PASS_THROUGH)(mlc_llm)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 the user's mistake (one message, no traceback;
    Typer does the same for malformed arguments), 1 ours."""
    remember_evaluated_code()
    try:
        app(arguments)
    except ShadowAttnError as error:
        message = f"[bold red]Error:[/] {escape(str(error))}"
        Console(stderr=True).print(message, soft_wrap=True, highlight=False)
        sys.exit(EXIT_USER_MISTAKE)
