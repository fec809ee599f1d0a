"""`sidecaml inspect` on any bytes: they are shown, or said not to be as the protocol has them, in time."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from ipc_server import decode

PAGE = 4096


def try_one(data: bytes) -> None:
    """Decode and show one segment, or one status page."""
    if not data:
        return
    kind, rest = data[0], data[1:]
    try:
        if kind & 1:
            print_away(decode.render_status(decode.decode_status(rest.ljust(PAGE, b"\0")), 1000))
        else:
            image = rest.ljust((kind >> 1) % 8 * PAGE, b"\0")
            print_away(decode.render_segment(decode.decode_segment(image), 1000))
    except decode.DecodeError as error:
        print_away(str(error))


def print_away(text: str) -> None:
    """What is shown to a person is text that a terminal can be given."""
    assert all(character == "\n" or character.isprintable() for character in text), repr(text)


if __name__ == "__main__":
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()
