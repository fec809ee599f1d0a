"""Logging of every process of the daemon: one line an event, on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO

# syslog's priorities, which systemd's journal reads from the start of a line.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY = 7


def setup(level: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send the log to standard error: with priorities when that is the journal, else with the time."""
    journal = to_journal(environment)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JournalFormatter() if journal else OneLineFormatter("%(asctime)s %(levelname)-7s %(message)s")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def to_journal(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether standard error is systemd's journal."""
    return environment.get("JOURNAL_STREAM", "") == _stream_of(sys.stderr)


class OneLineFormatter(logging.Formatter):
    """Keeps an event on one line, whatever a message or a traceback holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record, its line ends escaped."""
        return super().format(record).replace("\n", "\\n").replace("\r", "\\r")


class JournalFormatter(OneLineFormatter):
    """Puts the priority before the line, and no time: the journal keeps its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as `<N>message`."""
        return f"<{priority(record.levelno)}>{super().format(record)}"


def priority(level: int) -> int:
    """Give syslog's priority of a level."""
    return next((number for least, number in _PRIORITIES if level >= least), _DEBUG_PRIORITY)


def _stream_of(output: TextIO) -> str:
    # systemd.exec(5): the variable is inherited by programs whose output goes elsewhere by now.
    status = os.fstat(output.fileno())
    return f"{status.st_dev}:{status.st_ino}"
