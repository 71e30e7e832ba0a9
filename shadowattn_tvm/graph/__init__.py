"""The pilot's graphs for an NPU: static shapes and scales, exactly a plan's."""

from .bank import GraphSizes, PilotGraph, pilot_graphs

# from .manifest import BANK_ABI, BankGraph, BankManifest, BucketScales
from .relax_graph import GRAPH_ENTRY, pilot_module

__all__ = [
    "GRAPH_ENTRY",
    "GraphSizes",
    "PilotGraph",
    "pilot_graphs",
    "pilot_module",
]
