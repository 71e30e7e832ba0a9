"""The user's mistakes, by name. Each carries what was expected, what was got and how to mend it.

The command line turns any of these into one message and exit code 2; everything else is ours
(exit code 1, with a traceback).
"""

from __future__ import annotations


class ShadowAttnError(ValueError):
    """Base of every mistake a user can make; its text is the whole message they see."""


class ConfigError(ShadowAttnError):
    """A configuration, override or name that we don't know or can't use."""


class WeightsError(ShadowAttnError):
    """A checkpoint that is truncated, corrupt, incomplete, or of an architecture we don't run."""


class PlanError(ShadowAttnError):
    """A plan file that is malformed or made for another model."""


class CompileError(ShadowAttnError):
    """A model, target or plan combination that can't be compiled."""


class LibraryError(ShadowAttnError):
    """A compiled library that doesn't fit the weights or the plan it is used with."""


class DeviceError(ShadowAttnError):
    """A device, emulator or tool that is missing, gone, or failed at what it was asked for."""


class ContextOverflowError(ShadowAttnError):
    """A prompt or conversation longer than the library's context window."""


class OutputError(ShadowAttnError):
    """A place we can't write to: full disk, read-only folder, existing foreign files."""
