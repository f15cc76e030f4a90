"""The judge itself: what is excused, and that its alarm leaves that of others as it was."""

import signal

import jax.numpy as jnp
import pytest

from tests.fuzz.judge import NEGATIVE, OVERFLOW, Row, deadline, tried


def _always_nan(x):
    return x * jnp.nan


@pytest.mark.parametrize(
    ("makes", "excused", "not_excused"), [(OVERFLOW, 1e20, 1e3), (NEGATIVE, -0.5, 0.5)]
)
def test_a_nan_is_excused_only_where_its_reason_holds(makes, excused, not_excused):
    row = Row("nan", _always_nan, {"x": jnp.ones(2)}, compiled=False, makes=makes)
    tried(row, {"x": jnp.full(2, excused)})
    with pytest.raises(AssertionError, match="a NaN out of finite values"):
        tried(row, {"x": jnp.full(2, not_excused)})


def test_another_alarm_rings_still():
    before = signal.setitimer(signal.ITIMER_REAL, 1000)  # as pytest-timeout sets it
    try:
        with deadline():
            pass
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
