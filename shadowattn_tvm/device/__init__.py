"""Devices that compiled code runs on: emulated ARM and Hexagon, any OpenCL, real ones over RPC."""
