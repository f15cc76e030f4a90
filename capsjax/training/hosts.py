"""Several hosts that train one network together, by JAX's multi-controller runtime.

Every host runs the same program on its own part of every batch. The first one writes the log, the
config, the summary and pictures; all take part in checkpoints, so the run directory must be on a
file system that they share.
"""

import atexit
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from capsjax.training import parallel

# A host that has not been heard of for so long is gone.
_SILENCE_SECONDS = 20
_START_SECONDS = 300


# JAX's runtime aborts the process when it finds first that a host is gone, and its message does not
# say what to do. This one waits for the end of its input; a byte there means an orderly end.
_LAST_WORDS = "import sys; sys.stdin.buffer.read() or sys.stderr.write(sys.argv[1])"
_speaker: list[subprocess.Popen] = []

# What the runtime's errors begin with where this host itself is at fault.
_OWN_FAULTS = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")
_GO_ON = (
    "The checkpoints are kept: start the same command on all hosts again to go on from the last"
)


class Lost(RuntimeError):
    """Another host is gone."""


def join(coordinator: str, hosts: int, host: int) -> None:
    """Make this process one of several that train together; before anything is computed.

    Args:
        coordinator: address and port of host 0, ``HOST:PORT``, as the others reach it.
        hosts: how many there are.
        host: number of this one, from 0.

    Raises:
        ValueError: a number out of range or a malformed address.
        Lost: the others did not come.
    """
    address, _, port = coordinator.rpartition(":")
    if not address or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator is {coordinator!r}, expected HOST:PORT of host 0")
    if hosts < 2 or not 0 <= host < hosts:
        raise ValueError(
            f"host_id is {host} and num_hosts {hosts}, expected at least two hosts, numbered from 0"
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Its handler would take SIGTERM away from the process.
    jax.config.update("jax_enable_preemption_service", False)
    _prepare_last_words(
        f"capsjax: host {host} of {hosts} was ended, most likely by JAX's runtime because another "
        f"host is gone. {_GO_ON}\n"
    )
    try:
        jax.distributed.initialize(
            coordinator,
            hosts,
            host,
            initialization_timeout=_START_SECONDS,
            heartbeat_timeout_seconds=_SILENCE_SECONDS,
            shutdown_timeout_seconds=_SILENCE_SECONDS,
        )
        jax.device_count()  # the devices of all are known when all have come
    except jax.errors.JaxRuntimeError as error:
        raise Lost(
            f"the {hosts} hosts did not come together at {coordinator} in {_START_SECONDS} s "
            f"({_first_line(error)}): start the same command on each, with its own --host-id"
        ) from error


def is_first() -> bool:
    """Whether this is the host that writes what is written once."""
    return jax.process_index() == 0


def of_first(number: float) -> float:
    """The first host's number, on every host."""
    if jax.process_count() == 1:
        return number
    # As bytes: a JAX array would round it to float32.
    sent = np.frombuffer(np.float64(number).tobytes(), np.uint8)
    with watch():
        received = np.asarray(multihost_utils.broadcast_one_to_all(sent))
    return float(received.view(np.float64)[0])


def wait_for_all() -> None:
    """Go on when all hosts have come here."""
    of_first(0.0)


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """The first host does something that may fail; the others do it after it, or not at all."""
    if not is_first() and of_first(0.0):
        raise ValueError("host 0 could not go on: see what it says")
    try:
        yield
    except BaseException:
        if is_first():
            of_first(1.0)
        raise
    if is_first():
        of_first(0.0)


@contextmanager
def watch() -> Iterator[None]:
    """Within it, what the runtime raises when a host is gone becomes ``Lost``."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = _first_line(error)
        if reason.startswith(_OWN_FAULTS):
            raise
        raise Lost(
            f"host {jax.process_index()} of {jax.process_count()} lost another one "
            f"({reason}). {_GO_ON}"
        ) from error


def leave(status: int) -> None:
    """End the process at once where a host is lost: an orderly end would wait for it."""
    _no_last_words()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Stop:
    """Whether to stop, agreed upon by all hosts: what one is told, all learn one step later.

    Args:
        mesh: that training runs on.
    """

    def __init__(self, mesh: Mesh | None):
        self.mesh = mesh
        self.asked: jax.Array | None = None

    def __call__(self, caught: Sequence[int]) -> int | None:
        """The signal to stop for, if any; to be called once a step.

        Args:
            caught: signals that this host received.
        """
        own = caught[0] if caught else 0
        if self.mesh is None or jax.process_count() == 1:
            return own or None
        answer = 0 if self.asked is None else int(self.asked)
        local = np.full(self.mesh.local_mesh.size, own, np.int32)
        self.asked = _largest(
            jax.make_array_from_process_local_data(parallel.cut(self.mesh), local)
        )
        return answer or None


_largest = jax.jit(jnp.max)


def _prepare_last_words(message: str) -> None:
    command = [sys.executable, "-I", "-c", _LAST_WORDS, message]
    _speaker.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
    atexit.register(_no_last_words)


def _no_last_words() -> None:
    while _speaker:
        _speaker.pop().communicate(b".")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
