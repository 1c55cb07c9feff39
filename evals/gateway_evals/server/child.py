"""`python -m gateway_evals.server.child run …`: `gateway eval`, ended when its standard input closes.

Whoever started it holds the other end, so that a run outlives nobody: no app that is stopped and none that is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

GRACE_S = 5.0
"""From a Ctrl-C of ours to the end of the process: what is finished stands in the journal already."""


def main() -> None:
    # A parent that ignores or blocks SIGINT (Ray's processes do) leaves both to its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from gateway import cli

    sys.argv = ["gateway", "eval", *sys.argv[1:]]
    cli.main()


def _end_with_parent() -> None:
    # Not through `sys.stdin`, whose lock this thread would hold while the interpreter ends.
    while os.read(0, 4096):
        pass
    # At the main thread: it alone handles signals, and may be waiting for a socket.
    main_thread = threading.main_thread().ident
    if main_thread is not None:
        signal.pthread_kill(main_thread, signal.SIGINT)
    time.sleep(GRACE_S)
    os._exit(130)


if __name__ == "__main__":
    main()
