"""How long a model waits before it tries another worker."""

from __future__ import annotations

import itertools

from ipc_server.model import FIRST_PAUSE_S, LONGEST_PAUSE_S, pause_after


def test_pauses_grow_to_the_longest_and_stay_there() -> None:
    pauses = [pause_after(deaths) for deaths in range(20)]
    assert pauses[:4] == [FIRST_PAUSE_S, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert all(earlier <= later for earlier, later in itertools.pairwise(pauses))
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_model_whose_workers_die_for_days_is_still_tried() -> None:
    assert pause_after(10**6) == LONGEST_PAUSE_S
