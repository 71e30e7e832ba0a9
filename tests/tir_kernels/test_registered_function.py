"""Calls of functions that the process may or may not have registered."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling
from tvm_ffi.registry import remove_global_func

from tir_kernels.build import build_kernels
from tir_kernels.registered_function import Arguments, RegisteredFunction

NAME = "shadowattn.tests.any"


def caller() -> tirx.PrimFunc:
    """Calls the function twice, with 7 and with two views of x, and says whether it was found."""

    @T.prim_func(s_tir=True)
    def call_twice(var_x: T.handle, var_found: T.handle) -> None:
        T.func_attr({"tirx.is_scheduled": True})
        n = T.int32()
        x = T.match_buffer(var_x, (n, 4), "int8")
        found = T.match_buffer(var_found, (1,), "int32")
        function = RegisteredFunction(NAME)
        function.find()
        found[0] = T.Cast("int32", function.is_found())
        for _ in range(2):
            if T.And(function.is_found(), T.Not(function.has_failed())):
                arguments = Arguments(3, tensors=2, max_ndim=3)
                arguments.add_integer(7)
                arguments.add_tensor(x.data, "int8", (n, T.int32(4)))
                arguments.add_tensor(T.address_of(x[1, 0]), "int8", (T.int32(1), n - 1, T.int32(4)))
                function.call(arguments)
        function.close()

    return call_twice


@pytest.fixture(scope="module")
def call(host_target: tvm.target.Target) -> Callable[[], tuple[np.ndarray, int]]:
    kernel = build_kernels({"kernel": caller()}, host_target)["kernel"]

    def run() -> tuple[np.ndarray, int]:
        x = tvm.runtime.tensor(np.zeros((3, 4), np.int8))
        found = tvm.runtime.tensor(np.zeros(1, np.int32))
        kernel(x, found)
        return x.numpy(), int(found.numpy()[0])

    return run


@contextmanager
def registered(function: Callable[..., Any]) -> Iterator[None]:
    tvm.register_global_func(NAME, function)
    try:
        yield
    finally:
        remove_global_func(NAME)


def add(amount: int, whole: tvm.runtime.Tensor, rows: tvm.runtime.Tensor) -> object:
    """Adds `amount` to all but the first row; returns an object."""
    assert (whole.shape, rows.shape) == ((3, 4), (1, 2, 4))
    rows.copyfrom(rows.numpy() + np.int8(amount))
    return whole.numpy().tolist().__repr__()


def test_what_is_not_registered_is_not_called(call: Callable[[], Any]) -> None:
    x, found = call()
    assert (x.any(), found) == (False, 0)


def test_arguments_arrive_and_what_is_written_stays(call: Callable[[], Any]) -> None:
    with registered(add):
        x, found = call()
    assert found == 1
    np.testing.assert_array_equal(x, [[0] * 4, [14] * 4, [14] * 4])
    assert call()[1] == 0


def test_nobody_holds_on_to_the_function(call: Callable[[], Any]) -> None:
    def function(*arguments: object) -> None:
        return None

    before = sys.getrefcount(function)
    with registered(function):
        call()
    gc.collect()
    assert sys.getrefcount(function) == before


def test_an_error_is_raised_and_nothing_is_called_after_it(call: Callable[[], Any]) -> None:
    calls = []

    def fail(*arguments: object) -> None:
        calls.append(arguments)
        raise KeyError("no such DSP")

    with registered(fail), pytest.raises(KeyError, match="no such DSP"):
        call()
    assert len(calls) == 1
    assert call()[1] == 0
