"""A file of one value that is written again and again: whoever is killed meanwhile leaves the value before.

Two places, far apart, are written in turn. Each has a header with a sequence number, the length of what
follows and checksums of both; the newest place whose checksums are right counts. The header goes last.
"""

from __future__ import annotations

import os
import struct
import zlib

from ipc_server.crash_points import point

MAGIC = b"SIDEKEPT"
# Far enough for anything: the file is a memfd, and what lies between takes no memory.
PLACES = (0, 1 << 32)
_HEADER = struct.Struct("<8sQQII")
_COVERED = struct.Struct("<8sQQI")


class StateFile:
    """The file, open in this process."""

    def __init__(self, fd: int) -> None:
        """Take over the descriptor of an empty file or of one that was written by this class."""
        self.fd = fd
        found = [(sequence, place) for place in PLACES if (sequence := _sequence(fd, place))]
        self._sequence, self._place = max(found, default=(0, PLACES[1]))

    @classmethod
    def create(cls) -> StateFile:
        """Make a new one."""
        return cls(os.memfd_create("sidecaml-state", os.MFD_CLOEXEC))

    def read(self) -> bytes | None:
        """Give what was written last; None when nothing ever was, or nothing of it is whole."""
        return _content(self.fd, self._place) if self._sequence else None

    def write(self, data: bytes) -> None:
        """Write a new value; OSError when there is no room for it: then the one before still counts."""
        place = PLACES[1] if self._place == PLACES[0] else PLACES[0]
        covered = _COVERED.pack(MAGIC, self._sequence + 1, len(data), zlib.crc32(data))
        # A header of before would vouch for nothing now, and its checksum shows it.
        _write(self.fd, data, place + _HEADER.size)
        point("supervisor.store.half-saved")
        _write(self.fd, covered + struct.pack("<I", zlib.crc32(covered)), place)
        self._sequence, self._place = self._sequence + 1, place

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


def _sequence(fd: int, place: int) -> int:
    """Give the sequence number of a place that is whole; 0 of one that is not."""
    return 0 if _content(fd, place) is None else _header(fd, place)[0]


def _header(fd: int, place: int) -> tuple[int, int, int]:
    header = os.pread(fd, _HEADER.size, place)
    if len(header) < _HEADER.size:
        return 0, 0, 0
    magic, sequence, length, content_sum, header_sum = _HEADER.unpack(header)
    if magic != MAGIC or header_sum != zlib.crc32(header[: _COVERED.size]):
        return 0, 0, 0
    return sequence, length, content_sum


def _content(fd: int, place: int) -> bytes | None:
    sequence, length, content_sum = _header(fd, place)
    if not sequence or length > os.fstat(fd).st_size - place - _HEADER.size:
        return None
    content = os.pread(fd, length, place + _HEADER.size)
    return content if len(content) == length and zlib.crc32(content) == content_sum else None


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
