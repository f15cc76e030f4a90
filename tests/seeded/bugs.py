"""Thirty bugs that capsule networks have had, put into this library's own code.

Each is a few words of code exchanged for others. The suite should not let any of them pass:
``python -m tests.seeded`` tries.
"""

from tests.seeded import mathematics, practice

BUGS = (*mathematics.BUGS, *practice.BUGS)
