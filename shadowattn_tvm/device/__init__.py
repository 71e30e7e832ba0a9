"""Devices that compiled code runs on: the emulated Hexagon DSP."""
