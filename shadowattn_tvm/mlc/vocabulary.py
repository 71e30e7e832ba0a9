"""How many tokens there are, for the functions whose last product is over all of them.

MLC leaves this extent open, so that one library serves fine-tunes with more tokens. A plan is for
one model, and our kernels are for matrices of known size.
"""

from __future__ import annotations

import tvm
from tvm import relax, tirx

_VOCABULARY = "vocab_size"
_ROWS = "seq_len"

_FEW_ROWS = ("embed", "prefill", "decode", "batch_prefill", "batch_decode")
"""One row of logits a sequence, or none. The others keep the extent open (`batch_verify`): with it
known, space for the logits of a whole prefill chunk would be planned, gigabytes for some models,
and MLC's engine takes what is planned from the memory it gives to the KV cache."""

_ANY_ROWS = "get_logits"
"""The product alone. Its rows get a name that MLC knows no upper bound of, to the same end."""


def bind_vocabulary(module: tvm.IRModule, vocab_size: int) -> tvm.IRModule:
    """`module`, traced by MLC, for a vocabulary of known size."""
    extent = {_VOCABULARY: tirx.IntImm("int64", vocab_size)}
    bindings = dict.fromkeys(_FEW_ROWS, extent)
    bindings[_ANY_ROWS] = {**extent, _ROWS: tirx.Var("num_logit_rows", "int64")}
    functions = {gv.name_hint: function for gv, function in module.functions_items()}
    for name in bindings.keys() & functions.keys():
        free = {variable.name for variable in relax.analysis.defined_symbolic_vars(functions[name])}
        binding = {symbol: value for symbol, value in bindings[name].items() if symbol in free}
        if binding:
            module = relax.transform.BindSymbolicVars(binding, name)(module)
    return module
