"""A module that cannot be imported."""

NOTHING = 0
IMPOSSIBLE = 1 // NOTHING
