"""The log: what the journal takes from the start of a line, and one line an event."""

from __future__ import annotations

import logging
import os
import sys

import pytest

from ipc_server.logs import JournalFormatter, setup, to_journal


def record(level: int, message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("ipc_server.x", level, "x.py", 1, message, values, None)


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
        (logging.DEBUG, 7),
        (logging.ERROR + 1, 3),
        (logging.INFO - 1, 7),
    ],
)
def test_a_line_for_the_journal_begins_with_its_priority(level: int, priority: int) -> None:
    assert JournalFormatter().format(record(level, "worker %d died", 7)) == f"<{priority}>worker 7 died"


def test_no_part_of_a_message_is_a_line_of_its_own() -> None:
    # The journal would read a second line with a priority that somebody else chose.
    line = JournalFormatter().format(record(logging.INFO, "a\n<0>b\rc"))
    assert line == "<6>a\\n<0>b\\rc"


def test_a_traceback_stays_on_its_line() -> None:
    try:
        raise ValueError("no\nway")
    except ValueError:
        told = logging.LogRecord("x", logging.ERROR, "x.py", 1, "failed", (), sys.exc_info())
    line = JournalFormatter().format(told)
    assert line.startswith("<3>failed\\nTraceback")
    assert "\n" not in line


def test_priorities_are_for_the_journal_only(capfd: pytest.CaptureFixture[str]) -> None:
    status = os.fstat(sys.stderr.fileno())
    streams = {f"{status.st_dev}:{status.st_ino}": "<4>told", f"{status.st_dev}:0": " WARNING told"}
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        for stream, ending in streams.items():
            environment = {"JOURNAL_STREAM": stream}
            assert to_journal(environment) == ending.startswith("<")
            setup("info", environment)
            root.warning("told")
            line = capfd.readouterr().err.rstrip("\n")
            assert line.endswith(ending)
            assert line.startswith("<") == ending.startswith("<")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
