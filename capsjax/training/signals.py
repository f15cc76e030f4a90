"""SIGINT and SIGTERM as requests that a loop answers when its state is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


@contextmanager
def catch_signals(active: bool) -> Iterator[list[int]]:
    """A list that receives SIGINT and SIGTERM instead of the process; a second SIGINT gets through.

    Only where there is something to save, and only in the main thread (elsewhere Python refuses).
    """
    caught: list[int] = []

    def remember(number: int, frame: Any) -> None:
        del frame
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    handled = (signal.SIGINT, signal.SIGTERM)
    if not active or threading.current_thread() is not threading.main_thread():
        yield caught
        return
    previous = {number: signal.signal(number, remember) for number in handled}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def leave(number: int) -> NoReturn:
    """End as the signal asked: KeyboardInterrupt for SIGINT, else SystemExit(128 + number)."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
