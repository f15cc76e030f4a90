"""Runs pytest in forks of a process that has imported what takes seconds: JAX, Flax, pytest.

Nothing of the library itself is imported before the fork, so that each one sees the code as it then
is; and nothing is computed, since JAX's threads do not survive a fork.
"""

import os
import signal
import socket
import sys
import time
import traceback

# Seconds. A loop that no longer ends is noticed by whoever waits for it, and by no test: it has a
# status of its own, which pytest does not use.
LIMIT = 900
TIMED_OUT = 124
# That pytest cannot rewrite the asserts of plugins that are imported already does not matter here.
OPTIONS = ("-n", "0", "-x", "-q", "-W", "ignore::pytest.PytestAssertRewriteWarning")


def run(tests: list[str]) -> int:
    """Exit status of pytest at its first failure, or ``TIMED_OUT``."""
    child = os.fork()
    if child == 0:
        _test(tests)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return abs(os.waitstatus_to_exitcode(status))
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TIMED_OUT


def _test(tests: list[str]) -> None:
    status = 3  # of pytest, where it breaks down
    try:
        import pytest

        status = int(pytest.main([*OPTIONS, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def prepare() -> None:
    """Import what takes long."""
    import chex  # noqa: F401
    import flax.nnx  # noqa: F401
    import hypothesis.extra.numpy  # noqa: F401
    import jax.test_util  # noqa: F401
    import pytest  # noqa: F401


def main(path: str, tests: list[str]) -> None:
    """Serve at a socket, one run at a time, until it is ended."""
    prepare()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"%d" % run(tests))
            # The first run compiled the code as it is. Later a file may change twice within a
            # second, which a compiled one would not show.
            sys.dont_write_bytecode = True


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
