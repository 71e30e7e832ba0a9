"""The value of a host expression: integers, floats and conditions as TIR means them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from tvm import ir, tirx

Number = int | float | bool

_BINARY: dict[type, Callable[[Any, Any], Number]] = {
    tirx.Add: operator.add,
    tirx.Sub: operator.sub,
    tirx.Mul: operator.mul,
    tirx.FloorDiv: operator.floordiv,
    tirx.FloorMod: operator.mod,
    tirx.Min: min,
    tirx.Max: max,
    tirx.LT: operator.lt,
    tirx.LE: operator.le,
    tirx.GT: operator.gt,
    tirx.GE: operator.ge,
    tirx.EQ: operator.eq,
    tirx.NE: operator.ne,
    tirx.And: lambda a, b: a and b,
    tirx.Or: lambda a, b: a or b,
}

_CALLS: dict[str, Callable[..., Number]] = {
    "tirx.floor": math.floor,
    "tirx.shift_left": operator.lshift,
    "tirx.shift_right": operator.rshift,
    "tirx.bitwise_and": operator.and_,
}


def evaluate(expression: Any, values: Mapping[Any, Number]) -> Number:
    """The value of `expression` where variables have `values`.

    Raises `NotImplementedError`, by its name, for what no host code of ours has.
    """
    if isinstance(expression, int | float):
        return expression
    if isinstance(expression, tirx.IntImm | tirx.FloatImm):
        number: Number = expression.value
        return number
    if type(expression) in _BINARY:
        operands = (evaluate(side, values) for side in (expression.a, expression.b))
        return _BINARY[type(expression)](*operands)
    if isinstance(expression, tirx.Not):
        return not evaluate(expression.a, values)
    if isinstance(expression, tirx.Cast):
        value = evaluate(expression.value, values)
        return value if "float" in str(expression.ty) else int(value)
    if isinstance(expression, ir.Call):
        return _evaluate_call(expression, values)
    if isinstance(expression, tirx.Select):
        taken = expression.true_value if evaluate(expression.condition, values) else None
        return evaluate(expression.false_value if taken is None else taken, values)
    if isinstance(expression, tirx.Var):
        return values[expression]
    raise NotImplementedError(f"host expression {type(expression).__name__}: {expression}")


def _evaluate_call(call: Any, values: Mapping[Any, Number]) -> Number:
    name = str(call.op.name)
    if name == "tirx.if_then_else":
        condition, then, otherwise = call.args
        return evaluate(then if evaluate(condition, values) else otherwise, values)
    if name not in _CALLS:
        raise NotImplementedError(f"host call {name}")
    return _CALLS[name](*(evaluate(argument, values) for argument in call.args))
