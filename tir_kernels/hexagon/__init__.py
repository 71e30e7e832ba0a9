"""Kernels for the HVX vector unit of a Hexagon DSP: the pilot as an NPU runs it, integers only."""
