"""Run a library made by mlc_llm with nothing but TVM: LIBRARY WEIGHTS PROMPT -> greedy tokens.

A program, not a module: the test starts it with `python -I`.
"""

import json
import sys

import numpy as np
import tvm
from tvm import relax
from tvm.contrib import tvmjs
from tvm_ffi import Shape, registry


def main(library: str, weights: str, prompt: list[int]) -> None:
    names_before = set(registry.list_global_func_names())
    device = tvm.cpu()
    module = relax.VirtualMachine(tvm.runtime.load_module(library), device).module
    metadata = json.loads(module["_metadata"]())
    by_name, _ = tvmjs.load_tensor_cache(weights, device)
    parameters = [by_name[parameter["name"]] for parameter in metadata["params"]]
    builtin = {
        name: tvm.get_global_func(f"vm.builtin.{name}")
        for name in (
            "kv_state_add_sequence",
            "kv_state_begin_forward",
            "kv_state_end_forward",
            "reshape",
        )
    }
    num_tokens, chunk = metadata["active_vocab_size"], metadata["prefill_chunk_size"]
    cache = module["create_tir_paged_kv_cache"](
        Shape([1]),
        Shape([metadata["context_window_size"]]),
        Shape([chunk]),
        Shape([16]),
        Shape([0]),
    )
    builtin["kv_state_add_sequence"](cache, 0)

    def forward(function: str, tokens: list[int]) -> int:
        builtin["kv_state_begin_forward"](cache, Shape([0]), Shape([len(tokens)]))
        ids = tvm.runtime.tensor(np.asarray(tokens, np.int32), device)
        embedded = module["embed"](ids, parameters)
        embedded = builtin["reshape"](embedded, Shape([1, len(tokens), embedded.shape[1]]))
        logits, _ = module[function](embedded, cache, parameters)
        builtin["kv_state_end_forward"](cache)
        return int(logits.numpy().reshape(-1)[:num_tokens].argmax())

    for begin in range(0, len(prompt), chunk):
        token = forward("prefill", prompt[begin : begin + chunk])
    tokens = [token]
    while len(tokens) < 12:
        tokens.append(forward("decode", tokens[-1:]))
    assert set(registry.list_global_func_names()) == names_before, "something was registered"
    ours = [name for name in sys.modules if name.startswith(("shadowattn", "tir_kernels", "mlc"))]
    assert not ours, ours
    print(json.dumps(tokens))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
