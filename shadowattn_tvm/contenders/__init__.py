"""Whole models behind one interface, each in a process of its own.

Their thread pools spin against each other in one process, and a process's peak memory is one
contender's only if it has no other. So `process` starts a `worker` for each and asks it for one
thing at a time; a worker that isn't asked waits for its pipe and takes no core. The package knows
nothing of what is done with the answers.
"""

from .messages import ContenderKind, ContenderSettings
from .process import Answer, ContenderProcess, running

__all__ = ["Answer", "ContenderKind", "ContenderProcess", "ContenderSettings", "running"]
