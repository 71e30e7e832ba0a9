"""Devices that compiled code runs on: emulated ARM and Hexagon ones, real machines over RPC."""
