"""How large a channel's journal is, and where the state that it carries lies behind the first page.

The first page is the C core's (`struct sidecaml_journal` of abi.h). Then come, for each carried tensor in
turn, the dimensions that its state has, MAX_RANK unsigned 64-bit integers; then two places for each.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ipc_server.abi import (
    COMMITTED_BITS,
    DTYPE_BITS,
    JOURNAL_COMMITTED_OFFSET,
    JOURNAL_FAILED_OFFSET,
    JOURNAL_STARTED_OFFSET,
    MAX_RANK,
    MOST_ATTEMPTS,
    MOST_BATCH,
    PAGE_BYTES,
    STARTED_BITS,
    TENSOR_ALIGN,
)
from ipc_server.signature import Signature, TensorSpec

DIM_BYTES = 8
_ATTEMPTS_BITS = MOST_ATTEMPTS.bit_length()


@dataclass(frozen=True)
class StateLayout:
    """Where carried state lies, from the end of the journal's page on."""

    # Of each tensor, its two places.
    offsets: tuple[tuple[int, int], ...]
    # Of each tensor, in bytes.
    sizes: tuple[int, ...]
    bytes: int


def state_layout(specs: Sequence[TensorSpec]) -> StateLayout:
    """Lay out state whose tensors have at most these dimensions; none of them holds strings."""
    end = _aligned(len(specs) * MAX_RANK * DIM_BYTES)
    offsets, sizes = [], []
    for spec in specs:
        size = -(-math.prod(spec.max_dims) * DTYPE_BITS[spec.dtype] // 8)
        offsets.append((end, end + _aligned(size)))
        sizes.append(size)
        end += 2 * _aligned(size)
    return StateLayout(tuple(offsets), tuple(sizes), end if specs else 0)


def journal_size(signature: Signature, maxima: Mapping[str, int]) -> int:
    """Compute how many bytes a channel's journal takes; of maxima in which `bind` found nothing wrong."""
    state = state_layout(signature.bind_state(maxima)).bytes
    return PAGE_BYTES + -(-state // PAGE_BYTES) * PAGE_BYTES


def requests_started(journal_fd: int) -> int:
    """Read how many requests a channel's workers have started; those given up before they ran count, too."""
    return _end_of(_word(journal_fd, JOURNAL_STARTED_OFFSET))


def unfinished_run(journal_fd: int) -> int:
    """Tell which run, by a number that no other has, neither succeeded nor failed; 0 for none.

    Of a channel whose worker is dead: it was in the middle of that.
    """
    started = _word(journal_fd, JOURNAL_STARTED_OFFSET)
    committed = _word(journal_fd, JOURNAL_COMMITTED_OFFSET) >> COMMITTED_BITS
    ended = (committed, _word(journal_fd, JOURNAL_FAILED_OFFSET))
    return 0 if _end_of(started) in (0, *ended) else started


def _word(journal_fd: int, offset: int) -> int:
    return int.from_bytes(os.pread(journal_fd, 8, offset), "little")


def _end_of(started: int) -> int:
    """Give the ticket behind the last of a run; 0 for none."""
    more = (started >> _ATTEMPTS_BITS) & (MOST_BATCH - 1)
    return (started >> STARTED_BITS) + more if started else 0


def _aligned(size: int) -> int:
    # Never 0: the places of a tensor without elements are told apart, too.
    return max(-(-size // TENSOR_ALIGN), 1) * TENSOR_ALIGN
