"""Help for a name that nobody knows: the nearest one that somebody does."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ipc_server.messages import shown

MOST_LISTED = 8


def hint(name: str, known: Iterable[str]) -> str:
    """Say which known name is meant, or which there are: the end of a sentence about an unknown one."""
    names = sorted(known)
    if not names:
        return "there is none"
    folded = {other.casefold(): other for other in names}
    nearest = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean {shown(folded[nearest[0]])}?"
    listed = ", ".join(shown(other) for other in names[:MOST_LISTED])
    rest = len(names) - MOST_LISTED
    return f"there is {listed}" + (f" and {rest} more" if rest > 0 else "")
