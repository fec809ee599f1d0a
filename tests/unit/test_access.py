"""Who may connect and who is trusted: by user and group as the kernel tells them."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
from pathlib import Path

import pytest

from ipc_server import access
from ipc_server.abi import ErrorCode
from ipc_server.access import Access, Account, Peer, peer_of
from ipc_server.channel import Channels
from ipc_server.config import Limits, load
from ipc_server.config_values import ConfigError
from ipc_server.control import Connection, Service
from ipc_server.errors import SidecamlError

OWN = os.geteuid()
STRANGER = Peer(1, 54321, frozenset({54321, 777}))


def refusal(chosen: Access, peer: Peer) -> str:
    with pytest.raises(SidecamlError) as caught:
        chosen.check(peer)
    assert caught.value.code is ErrorCode.DENIED
    return str(caught.value)


def configured(folder: Path, text: str, **environment: str) -> Access:
    file = folder / "access.toml"
    file.write_text(f"[access]\n{text}\n", encoding="utf-8")
    return load(file, models=["m=/m.onnx"], environment=environment).access


def test_without_configuration_only_the_own_user_and_root_come_in_and_are_trusted() -> None:
    chosen = Access()
    for uid in (OWN, 0):
        peer = Peer(1, uid, frozenset({uid}))
        chosen.check(peer)
        assert chosen.trusts(peer)
    said = refusal(chosen, STRANGER)
    assert said.startswith("the user with uid 54321 may not use this daemon: ")
    assert "[access]" in said
    assert not chosen.trusts(STRANGER)


def test_nobody_is_asked_for_the_name_of_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pytest.fail(f"{uid} was looked up"))
    other = next(entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid not in (0, OWN))
    said = refusal(Access(), Peer(1, other, frozenset()))
    assert said.startswith(f"the user with uid {other} may not use this daemon: ")


@pytest.mark.parametrize(
    "chosen",
    [
        Access(users=(Account("it", 54321),)),
        Access(groups=(Account("its first", 54321),)),
        Access(groups=(Account("another", 5), Account("its second", 777))),
    ],
)
def test_users_and_groups_come_in_and_are_not_trusted(chosen: Access) -> None:
    chosen.check(STRANGER)
    assert not chosen.trusts(STRANGER)
    refusal(chosen, Peer(1, 54322, frozenset({54322})))


@pytest.mark.parametrize(
    "chosen",
    [Access(trusted_users=(Account("it", 54321),)), Access(trusted_groups=(Account("its second", 777),))],
)
def test_who_is_trusted_comes_in_as_well(chosen: Access) -> None:
    chosen.check(STRANGER)
    assert chosen.trusts(STRANGER)
    refusal(chosen, Peer(1, 54322, frozenset({54322})))


def test_other_users_get_sealed_segments_always_and_the_own_user_when_asked_for() -> None:
    assert Access().seals(OWN + 1)
    assert not Access().seals(OWN)
    assert Access(segments="sealed").seals(OWN)


def test_a_user_without_a_number_here_is_refused_even_as_one_who_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "unknown_uid", lambda: 65534)
    chosen = Access(users=(Account("nobody", 65534),), trusted_users=(Account("nobody", 65534),))
    said = refusal(chosen, Peer(1, 65534, frozenset({65534})))
    assert "shows as 65534" in said
    assert "PrivateUsers" in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("         0          0 4294967295\n", None),
        ("0 1000 1\n", 65534),
        ("0 100000 65536\n", 65534),
        ("0 0 1000\n1000 1001 1\n", 65534),
    ],
)
def test_where_every_user_has_a_number_none_stands_for_the_others(
    tmp_path: Path, text: str, expected: int | None
) -> None:
    namespace = tmp_path / "uid_map"
    namespace.write_text(text)
    assert access.unknown_uid(namespace) == expected


def test_the_kernel_tells_who_connected_groups_included() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid) == (os.getpid(), OWN)
    assert peer.groups == {os.getegid(), *os.getgroups()}


@pytest.mark.skipif(OWN != 0, reason="only root can have as many groups as it likes")
def test_more_groups_than_python_has_room_for_are_told_too() -> None:
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(range(2000, 2300))
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            assert set(range(2000, 2300)) <= peer_of(ours).groups
            theirs.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_names_and_numbers_are_read_at_load(tmp_path: Path) -> None:
    root_group = grp.getgrgid(0).gr_name
    chosen = configured(
        tmp_path,
        f"users = ['nobody', 1234]\ngroups = ['{root_group}']\ntrusted_users = ['4321']\n"
        f"segments = 'sealed'\nsocket_mode = '0660'\nsocket_group = '{root_group}'",
    )
    assert [user.number for user in chosen.users] == [pwd.getpwnam("nobody").pw_uid, 1234]
    assert [group.number for group in chosen.groups] == [0]
    assert [user.number for user in chosen.trusted_users] == [4321]
    assert (chosen.segments, chosen.mode, chosen.group) == ("sealed", 0o660, 0)


def test_defaults_leave_the_socket_to_its_user(tmp_path: Path) -> None:
    chosen = configured(tmp_path, "")
    assert chosen == Access()
    assert (chosen.mode, chosen.group) == (0o600, None)


def test_a_mode_may_be_a_number_of_toml(tmp_path: Path) -> None:
    assert configured(tmp_path, "socket_mode = 0o660").mode == 0o660


def test_the_environment_separates_names_by_commas(tmp_path: Path) -> None:
    chosen = configured(tmp_path, "", SIDECAML_TRUSTED_USERS="nobody, 77", SIDECAML_SOCKET_MODE="0666")
    assert [user.number for user in chosen.trusted_users] == [pwd.getpwnam("nobody").pw_uid, 77]
    assert chosen.mode == 0o666


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "users = ['no-such-user']",
            "access.users: expected a user that this machine knows: there is no user",
        ),
        ("trusted_groups = ['no-such-group']", "there is no group 'no-such-group'"),
        ("socket_group = 'no-such-group'", "there is no group 'no-such-group'"),
        ("users = 'no-such-user'", "there is no user 'no-such-user'"),
        ("users = 7", "access.users: expected a list of names or numbers, got 7"),
        ("users = [true]", "the name or number of a user, not True"),
        ("users = [-1]", "the name or number of a user, not -1"),
        ("users = [4294967295]", "the name or number of a user, not 4294967295"),
        ("users = ['']", "there is no user ''"),
        ('users = ["a\\u0000b"]', "there is no user"),
        ("segments = 'memfd'", "access.segments: expected one of posix, sealed, got 'memfd'"),
        ("socket_mode = '0999'", "access.socket_mode: expected a mode in octal digits"),
        ("socket_mode = 4096", "access.socket_mode: expected a mode in octal digits"),
        ("socket_mode = true", "access.socket_mode: expected a mode in octal digits"),
        ("user = ['root']", "unknown key 'user': did you mean 'users'?"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, text)
    assert expected in str(caught.value)


def test_check_config_shows_names(tmp_path: Path) -> None:
    file = tmp_path / "access.toml"
    file.write_text("[access]\nusers = ['nobody', 1234]\nsocket_mode = '660'\n")
    lines = load(file, models=["m=/m.onnx"], environment={}).lines()
    texts = [line.split("  #")[0].strip() for line in lines]
    assert "access.users = nobody, 1234" in texts
    assert "access.socket_mode = 0660" in texts
    assert "access.trusted_groups = none" in texts
    assert "access.socket_group = none" in texts


def test_who_may_connect_no_more_opens_nothing_on_a_connection_that_is_there() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        service = Service({}, Channels(), Limits(), Access(users=(Account("it", STRANGER.uid),)))
        connection = Connection(ours, Peer(os.getpid(), STRANGER.uid, frozenset()), service)
        with theirs:
            for said in ("UNKNOWN_MODEL", "DENIED"):
                with pytest.raises(SidecamlError) as refused:
                    await connection._open({"id": 1, "op": "open", "model": "m", "slots": 1})
                assert refused.value.name == said
                service.access = Access()
            connection.drop()

    asyncio.run(scenario())
