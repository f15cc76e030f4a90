"""Every function of the tables, with one argument after the other broken.

``CAPSJAX_FUZZ=n`` tries n times as many, other ones; the suite's are the same in every run.
"""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import hostile, tables
from tests.fuzz.judge import Row, result_of, tried

TIMES = int(os.environ.get("CAPSJAX_FUZZ", "1"))
EXAMPLES = 14
LEAST = 2000  # cases of the short form

ROWS = tables.rows()


def test_the_short_form_has_as_many_cases_as_promised():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len(ROWS) * EXAMPLES >= LEAST


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_is_broken_is_refused_or_handled_by_contract(row: Row):
    names = sorted(row.valid if row.only is None else row.only)
    count = 0

    @settings(max_examples=EXAMPLES * TIMES, derandomize=TIMES == 1, database=None)
    @given(st.data())
    def broken(data):
        nonlocal count
        count += 1
        name = data.draw(st.sampled_from(names))
        tried(row, {**row.valid, name: data.draw(hostile.instead_of(row.valid[name]))})

    result_of(row, dict(row.valid))  # the row's own call is one that is taken
    broken()
    assert count >= EXAMPLES * TIMES
