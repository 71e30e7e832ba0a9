"""The FastRPC interface by which a phone's app calls a bank, for the Hexagon SDK's compiler."""

from __future__ import annotations

from ...graph import BankManifest

IDL_NAME = "shadowattn_pilot.idl"

_IDL = """\
// Pilot graphs on the DSP: compile with the Hexagon SDK's qaic.
#include "AEEStdDef.idl"
#include "remote.idl"

interface shadowattn_pilot : remote_handle64 {{
    // One launch of graph number `graph` of shadowattn_pilot.h ({num_graphs} graphs). Sequences
    // have the sizes that the header states; `result` is filled with importances or scores, or,
    // of a graph with a list_capacity, with lists of keys and their counts.
    AEEResult run(in long graph, in sequence<octet> queries, in sequence<octet> keys,
                  in sequence<long> heads, in sequence<long> lengths,
                  rout sequence<octet> result);
}};
"""


def fastrpc_idl(manifest: BankManifest) -> str:
    """The interface in FastRPC's language."""
    return _IDL.format(num_graphs=len(manifest.graphs))
