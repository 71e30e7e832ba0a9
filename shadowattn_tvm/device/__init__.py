"""Devices that compiled code runs on: an emulated ARM machine, and real ones behind TVM RPC."""
