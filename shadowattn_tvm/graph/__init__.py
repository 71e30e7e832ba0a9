"""The pilot's graphs for an NPU: static shapes and scales, exactly a plan's."""

from .bank import GraphSizes, PilotGraph, pilot_graphs
from .manifest import BANK_ABI, BankFile, BankGraph, BankManifest, BucketScales
from .relax_graph import GRAPH_ENTRY, pilot_module
from .store import LoadedBank, load_bank

__all__ = [
    "BANK_ABI",
    "GRAPH_ENTRY",
    "BankFile",
    "BankGraph",
    "BankManifest",
    "BucketScales",
    "GraphSizes",
    "LoadedBank",
    "PilotGraph",
    "load_bank",
    "pilot_graphs",
    "pilot_module",
]
