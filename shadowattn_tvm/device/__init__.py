"""Devices that compiled code runs on: emulated ARM machines and Hexagon DSPs, and real machines over
TVM RPC."""
