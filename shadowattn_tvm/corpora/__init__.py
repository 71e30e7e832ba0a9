"""Texts that calibration and evaluation read, and the windows of tokens taken from them."""

from .document import Document
from .sources import read_documents
from .windows import TextEncoder, Window, sample_windows

__all__ = ["Document", "TextEncoder", "Window", "read_documents", "sample_windows"]
