"""Devices that compiled code runs on: emulated ARM machines and Hexagon DSPs, real machines over RPC."""
