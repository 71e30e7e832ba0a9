"""The RPC server inside the emulated machine; runs there, with TVM and nothing of ours.

`python guest_server.py --host HOST --port PORT [--tracker HOST:PORT --key KEY] [--leashed]`

TVM's own server imports itself once more in a child process, which takes ten seconds in emulation.
Here one process listens and forks for each client. A kernel that crashes takes its client's child
along and makes TVM's listener give up: it is then started again, on the same port.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
import threading
import time

from tvm.rpc.server import PopenRPCServerState

SEARCHED_PORTS = 100


def main() -> None:
    """Serve until killed; says `READY PORT` on stdout once it listens."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tracker")
    parser.add_argument("--key", default="")
    parser.add_argument("--leashed", action="store_true", help="end when stdin does")
    options = parser.parse_args()
    if options.leashed:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    tracker = None
    if options.tracker:
        host, _, port = options.tracker.rpartition(":")
        tracker = (host, int(port))
    first, last = options.port, options.port + SEARCHED_PORTS
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no image of all memory
    home = os.getcwd()
    while True:
        os.chdir(home)  # the crashed client's folder, in which TVM leaves us, is gone
        state = PopenRPCServerState(
            options.host, first, last, tracker_addr=tracker, key=options.key
        )
        print(f"READY {state.port}", flush=True)
        state.thread.join()
        print("a client's process crashed: listening again", file=sys.stderr, flush=True)
        first, last = state.port, state.port + 1
        state.sock.close()
        del state
        gc.collect()  # the client's socket, so that it learns at once
        time.sleep(0.1)  # should the port be lost, the loop must not spin


def end_with_stdin() -> None:
    """Whoever started the machine holds the other end, however it ends."""
    os.read(0, 1)  # not through sys.stdin, whose lock a forked child would find held
    os._exit(0)


if __name__ == "__main__":
    main()
