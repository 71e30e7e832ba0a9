"""A plan and a Hexagon DSP in, a bank of pilot graphs out."""

from .bank import CompiledBank, compile_bank
from .targets import is_hexagon

__all__ = ["CompiledBank", "compile_bank", "is_hexagon"]
