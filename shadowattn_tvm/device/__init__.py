"""Devices that compiled code runs on."""
