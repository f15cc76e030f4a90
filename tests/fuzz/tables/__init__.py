"""The public functions by room: a valid call of each, and what is by contract."""

from tests.fuzz.judge import Row
from tests.fuzz.tables import choices, data, looking, mathematics, results, routings, trained


def rows() -> list[Row]:
    """Of all rooms."""
    rooms = (mathematics, routings, results, data, choices, looking, trained)
    return [row for room in rooms for row in room.ROWS]
