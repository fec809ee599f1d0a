"""What is said to systemd, taken from it, and kept by it: with a socket of our own in systemd's place."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ipc_server.access import Access
from ipc_server.errors import SidecamlError
from ipc_server.keeper import Keeper
from ipc_server.messages import close_all
from ipc_server.systemd import listen, notify
from ipc_server.systemd.manager import ServiceManager
from ipc_server.systemd.notify import Notifier, watchdog_interval_s
from ipc_server.systemd.sockets import listener_for, stop_listening
from ipc_server.systemd.statefile import StateFile
from ipc_server.systemd.store import LARGEST_STORE, LONGEST_NAME, Store, key_of


class Systemd:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address.replace("@", "\0", 1))
        self.sock.setblocking(False)
        self.stored: dict[str, int] = {}

    def hear(self) -> list[str]:
        """Take every message that came; descriptors are stored or closed."""
        heard = []
        while True:
            try:
                data, ancillary, _, _ = self.sock.recvmsg(65536, 65536)
            except BlockingIOError:
                return heard
            fds = array.array("i")
            for _, _, part in ancillary:
                fds.frombytes(part)
            heard.append(data.decode())
            self._keep(dict(line.split("=", 1) for line in data.decode().split("\n")), list(fds))

    def _keep(self, fields: dict[str, str], fds: list[int]) -> None:
        if "FDSTORE" in fields:
            assert fields["FDPOLL"] == "0"
            (self.stored[fields["FDNAME"]],) = fds
            return
        close_all(fds)
        if "FDSTOREREMOVE" in fields:
            # A name that is not there is none of systemd's concern either.
            close_all([fd for name, fd in self.stored.items() if name == fields["FDNAME"]])
            self.stored.pop(fields["FDNAME"], None)

    def handed(self) -> dict[str, int]:
        """Give what is stored to the next process, as copies."""
        return {name: os.dup(fd) for name, fd in self.stored.items()}

    def close(self) -> None:
        self.hear()
        close_all(self.stored.values())
        self.sock.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    playing = Systemd(
        str(tmp_path / "notify") if request.param == "path" else f"@{tmp_path.name}-{os.getpid()}"
    )
    yield playing
    playing.close()


@pytest.fixture
def here() -> Iterator[int]:
    fd = os.eventfd(0)
    yield fd
    os.close(fd)


# --- Saying things ---


def test_states_are_said(systemd: Systemd) -> None:
    notifier = Notifier(systemd.address)
    notifier.say("READY=1", "STATUS=well")
    notifier.reloading()
    ready, reloading = systemd.hear()
    assert ready == "READY=1\nSTATUS=well"
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    notifier.close()


@pytest.mark.parametrize("address", ["", "vsock:2:1", "/nowhere/notify"])
def test_nobody_to_talk_to_is_no_problem(address: str) -> None:
    notifier = Notifier(address)
    assert not notifier.is_heard
    notifier.say("READY=1")
    assert asyncio.run(notifier.barrier(0.0))
    notifier.close()


def test_a_barrier_waits_until_all_was_heard(systemd: Systemd) -> None:
    async def scenario() -> None:
        notifier = Notifier(systemd.address)
        waiting = asyncio.create_task(notifier.barrier(30.0))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert systemd.hear() == ["BARRIER=1"]
        assert await waiting
        assert not await notifier.barrier(0.01)
        notifier.close()

    asyncio.run(scenario())


def test_what_finds_no_room_is_said_in_order_later(systemd: Systemd, here: int) -> None:
    async def scenario() -> None:
        notifier = Notifier(systemd.address)
        for number in range(1000):
            notifier.say(f"STATUS={number}")
        notifier.say("FDSTORE=1", "FDNAME=late", "FDPOLL=0", fds=[here])
        heard: list[str] = []
        while not heard or "late" not in heard[-1]:
            heard += systemd.hear()
            await asyncio.sleep(0)
        assert heard[:-1] == [f"STATUS={number}" for number in range(1000)]
        notifier.close()

    asyncio.run(scenario())


def fill(notifier: Notifier) -> None:
    """Say so much that nothing more can wait."""
    while notifier.say("STATUS=again"):
        pass


@pytest.fixture
def short_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "MAX_OUTBOX", 4)


def test_descriptors_and_barriers_that_cannot_wait_are_errors(
    systemd: Systemd, here: int, short_outbox: None
) -> None:
    async def scenario() -> None:
        notifier = Notifier(systemd.address)
        fill(notifier)
        with pytest.raises(OSError, match="4 messages wait"):
            notifier.say("FDSTORE=1", "FDNAME=lost", "FDPOLL=0", fds=[here])
        with pytest.raises(OSError, match="4 messages wait"):
            await notifier.barrier(30.0)
        notifier.close()

    asyncio.run(scenario())


def test_descriptors_that_are_lost_while_they_wait_fail_the_barrier(
    systemd: Systemd, here: int, short_outbox: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        notifier = Notifier(systemd.address)
        while not notifier._outbox:
            notifier.say("STATUS=again")

        def refused(_data: bytes, fds: Sequence[int]) -> bool:
            if fds:
                raise OSError(errno.ETOOMANYREFS, "too many references")
            return True

        notifier.say("FDSTORE=1", "FDNAME=lost", "FDPOLL=0", fds=[here])
        waiting = asyncio.create_task(notifier.barrier(30.0))
        monkeypatch.setattr(notifier, "_try", refused)
        await asyncio.sleep(0)
        systemd.hear()
        with pytest.raises(OSError, match="too many references"):
            await waiting
        monkeypatch.undo()
        while systemd.hear():
            await asyncio.sleep(0)
        # That is over: what is said now arrives.
        waiting = asyncio.create_task(notifier.barrier(30.0))
        await asyncio.sleep(0)
        assert systemd.hear() == ["BARRIER=1"]
        assert await waiting
        notifier.close()

    asyncio.run(scenario())


def test_what_cannot_be_stored_is_not_kept_and_what_cannot_be_removed_is_removed_later(
    systemd: Systemd, here: int, short_outbox: None
) -> None:
    async def scenario() -> None:
        notifier = Notifier(systemd.address)
        store = Store(notifier, 16, {})
        store.keep("c1", {}, {"a": here})
        systemd.hear()
        assert set(systemd.stored) == {"state", "c1.a"}
        fill(notifier)
        with pytest.raises(OSError, match="4 messages wait"):
            store.keep("c2", {}, {"a": here})
        store.forget("c1")
        store.save()
        while systemd.hear():
            await asyncio.sleep(0.01)
        assert set(systemd.stored) == {"state", "c1.a"}
        store.save()
        systemd.hear()
        assert set(systemd.stored) == {"state"}
        store.close()
        notifier.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(environment: dict[str, str], interval: float | None) -> None:
    assert watchdog_interval_s(environment) == interval


def test_signs_of_life_come_from_the_loop_and_children_hear_of_nothing(systemd: Systemd) -> None:
    environment = {
        "NOTIFY_SOCKET": systemd.address,
        "WATCHDOG_USEC": "20000",
        "WATCHDOG_PID": str(os.getpid()),
        "FDSTORE": "7",
        "LISTEN_FDS": "3",
        "LISTEN_PID": "1",
        "OTHER": "kept",
    }

    async def scenario() -> None:
        manager = ServiceManager(environment)
        assert environment == {"OTHER": "kept"}
        manager.attend(lambda: "well")
        heard = systemd.hear()
        assert heard[-1].startswith("WATCHDOG=1\nEXTEND_TIMEOUT_USEC=")
        assert heard[-1].endswith("STATUS=well")
        manager.ready()
        while heard.count("WATCHDOG=1") < 3:
            heard += systemd.hear()
            await asyncio.sleep(0.001)
        assert "READY=1" in heard
        manager.close()

    asyncio.run(scenario())


# --- Taking what is handed over ---


def test_descriptors_for_somebody_else_are_left_alone() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}
    assert listen.take(environment) == {}
    assert environment == {}


def test_descriptors_are_taken_by_name_and_the_first_of_a_name_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fds = [os.eventfd(0, 0) for _ in range(4)]
    first = min(fds)
    assert fds == list(range(first, first + 4))
    monkeypatch.setattr(listen, "FIRST_FD", first)
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "4", "LISTEN_FDNAMES": "a:b:a"}
    taken = listen.take(environment)
    assert taken == {"a": first, "b": first + 1, "unknown": first + 3}
    assert not any(os.get_inheritable(fd) for fd in taken.values())
    close_all(taken.values())


# --- Keeping ---


def store_of(systemd: Systemd, most: int = 64, handed: dict[str, int] | None = None) -> Store:
    return Store(Notifier(systemd.address), most, handed or {})


def end(store: Store) -> None:
    store.save()
    store.close()
    store._notifier.close()


def test_without_a_store_nothing_is_kept(systemd: Systemd, here: int) -> None:
    for store in (store_of(systemd, 0), Store(Notifier(""), 64, {})):
        assert not store.is_there
        store.keep("c1", {}, {"s": here})
        store.forget("c1")
        asyncio.run(store.settle())
        assert systemd.hear() == []
        end(store)


def test_a_successor_gets_records_and_descriptors(systemd: Systemd, here: int) -> None:
    store = store_of(systemd)
    store.keep("c1", {"model": "digits", "slots": 2}, {"s": here})
    store.keep("c2", {"model": "gone"}, {"s": here})
    store.change("c1", slots=3)
    store.forget("c2")
    number = store.number()
    end(store)
    systemd.hear()
    assert set(systemd.stored) == {"state", "c1.s"}
    successor = store_of(systemd, handed=systemd.handed())
    assert list(successor.inherited) == ["c1"]
    kept = successor.take("c1")
    assert kept and kept.record == {"model": "digits", "slots": 3} and not kept.missing
    assert str(Path(f"/proc/self/fd/{kept.fds['s']}").readlink()) == "anon_inode:[eventfd]"
    assert successor.number() > number
    close_all(kept.fds.values())
    end(successor)


def test_what_the_state_does_not_name_is_removed_and_what_is_missing_is_told(
    systemd: Systemd, here: int
) -> None:
    store = store_of(systemd)
    store.keep("c1", {}, {"s": here, "q": here})
    end(store)
    systemd.hear()
    os.close(systemd.stored.pop("c1.q"))
    systemd.stored["c9.s"] = os.dup(here)
    successor = store_of(systemd, handed=systemd.handed())
    assert successor.inherited["c1"].missing == ["q"]
    systemd.hear()
    assert "c9.s" not in systemd.stored
    end(successor)


def test_a_state_that_cannot_be_read_ends_what_was_kept(systemd: Systemd, here: int) -> None:
    store = store_of(systemd)
    store.keep("c1", {}, {"s": here})
    end(store)
    systemd.hear()
    os.ftruncate(systemd.stored["state"], 0)
    os.pwrite(systemd.stored["state"], os.urandom(1000), 0)
    successor = store_of(systemd, handed=systemd.handed())
    assert successor.inherited == {}
    systemd.hear()
    assert set(systemd.stored) == {"state"}
    successor.keep("c2", {}, {"s": here})
    end(successor)


def test_a_full_store_refuses_by_name(systemd: Systemd, here: int) -> None:
    store = store_of(systemd, 4)
    store.keep("c1", {}, {"s": here})
    with pytest.raises(SidecamlError, match="FileDescriptorStoreMax is 4") as refused:
        store.keep("c2", {}, {"s": here}, spare=2)
    assert refused.value.name == "LIMIT"
    store.keep("c3", {}, {"s": here}, spare=1)
    end(store)


def test_a_store_that_is_not_answered_for_is_a_timeout(
    systemd: Systemd, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipc_server.systemd.store.BARRIER_TIMEOUT_S", 0.01)

    async def scenario() -> None:
        store = store_of(systemd)
        store.keep("c1", {}, {"s": here})
        with pytest.raises(SidecamlError, match="systemd did not take"):
            await store.settle()
        end(store)

    asyncio.run(scenario())


def test_a_worker_begins_though_its_state_cannot_be_written(
    systemd: Systemd, here: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_file: StateFile, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = store_of(systemd)
    keeper, worker = Keeper(store), object()
    store.keep("w1", {"active": False}, {"c": here})
    keeper.known(worker, "w1")
    with monkeypatch.context() as patch:
        patch.setattr(StateFile, "write", full)
        keeper.worker_begins(worker, 0)  # type: ignore[arg-type]
        assert "cannot be kept for its successor: No space left" in caplog.text
    end(store)


def test_names_fit_into_one_variable() -> None:
    assert [key_of("c", number) for number in (0, 1, 35, 36, 36**3)] == ["c0", "c1", "cz", "c10", "c1000"]
    assert len(key_of("c", 2**48)) + len(".s") <= LONGEST_NAME
    size = len("LISTEN_FDNAMES=") + LARGEST_STORE * (LONGEST_NAME + 1)
    assert size < 128 * 1024


# --- Where to listen ---


def listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_systemds_own_socket_is_listened_on_and_its_file_left_alone(systemd: Systemd, tmp_path: Path) -> None:
    with listening(tmp_path / "given.sock") as given:
        handed = {"control": os.dup(given.fileno()), "other": os.eventfd(0)}
        store = store_of(systemd, handed=handed)
        listener = listener_for(tmp_path / "configured.sock", Access(), store)
        assert listener.path == tmp_path / "given.sock"
        stop_listening(listener, store)
        assert (tmp_path / "given.sock").exists()
        assert not (tmp_path / "configured.sock").exists()
        end(store)


def test_a_successor_listens_on_the_same_socket(systemd: Systemd, tmp_path: Path) -> None:
    path = tmp_path / "sidecaml.sock"
    store = store_of(systemd)
    first = listener_for(path, Access(), store)
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    waiting.connect(str(path))
    first.sock.close()
    end(store)
    systemd.hear()
    successor = store_of(systemd, handed=systemd.handed())
    listener = listener_for(path, Access(), successor)
    accepted, _ = listener.sock.accept()
    accepted.close()
    waiting.close()
    stop_listening(listener, successor)
    assert not path.exists()
    end(successor)
    systemd.hear()
    assert set(systemd.stored) == {"state"}


@pytest.mark.parametrize("why", ["another path", "its file is gone", "another mode"])
def test_a_socket_that_is_not_wanted_any_more_is_given_up(systemd: Systemd, tmp_path: Path, why: str) -> None:
    path = tmp_path / "sidecaml.sock"
    store = store_of(systemd)
    listener_for(path, Access(), store).sock.close()
    end(store)
    systemd.hear()
    if why == "its file is gone":
        path.unlink()
    wanted = tmp_path / "other.sock" if why == "another path" else path
    successor = store_of(systemd, handed=systemd.handed())
    access = Access(socket_mode="0660") if why == "another mode" else Access()
    listener = listener_for(wanted, access, successor)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(wanted))
    assert path.exists() == (wanted == path)
    stop_listening(listener, successor)
    end(successor)
