"""Clients of other users, for tests that run as root: functions in a forked child that is somebody else."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

# Nobody's, on any machine; not 65534, which stands for users without a number in some places.
STRANGER = 65533
STRANGER_GROUP = 65532


def is_root() -> bool:
    """Whether other users' clients can be had; CI is root."""
    return os.geteuid() == 0


class Child:
    """A forked child that runs a function, as another user when `uid` says so.

    What it needs is imported here beforehand: the other user may not be able to read the files.
    """

    def __init__(
        self, function: Callable[[], Any], uid: int | None = None, groups: Sequence[int] = ()
    ) -> None:
        """Start it."""
        self._result, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._result)
            _live(function, uid, groups, writing)
        os.close(writing)
        self._over = False

    def result(self) -> Any:
        """Wait for what the function returns; fail with its traceback when it raised."""
        with os.fdopen(self._result, "rb") as reading:
            # Not until the end of the pipe, which a grandchild may hold.
            found = _loaded(reading)
        code = self._reap()
        assert found, f"the child ended with {code} and no result"
        fine, value = found
        assert fine, value
        return value

    def kill(self) -> None:
        """Kill it, wherever it is."""
        if not self._over:
            os.kill(self.pid, signal.SIGKILL)
            os.close(self._result)
            self._reap()

    def _reap(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self._over = True
        return os.waitstatus_to_exitcode(status)


def _loaded(reading: BinaryIO) -> tuple[bool, Any] | None:
    try:
        found: tuple[bool, Any] = pickle.load(reading)
    except EOFError:
        return None
    return found


def _live(function: Callable[[], Any], uid: int | None, groups: Sequence[int], writing: int) -> None:
    try:
        try:
            if uid is not None:
                os.setgroups(list(groups))
                os.setresgid(STRANGER_GROUP, STRANGER_GROUP, STRANGER_GROUP)
                os.setresuid(uid, uid, uid)
            outcome = (True, function())
        except BaseException:
            outcome = (False, traceback.format_exc())
        with os.fdopen(writing, "wb") as result:
            pickle.dump(outcome, result)
    finally:
        # Nothing of the test run that this is a copy of may end here.
        os._exit(0)


def as_user(uid: int, function: Callable[[], Any], groups: Sequence[int] = ()) -> Any:
    """Run a function as another user, and give what it returns."""
    return Child(function, uid, groups).result()


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that every user can enter, which pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="sidecaml-test-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)
