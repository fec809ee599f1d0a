"""The arguments of `sidecaml bench`; here nothing is loaded that other commands do not need."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipc_server import messages

# Beyond these nothing is measured but the machine.
MOST_CLIENTS = 1024
MOST_CHANNELS = 1024
MOST_SETS = 4096
MOST_SECONDS = 86400.0


def add(commands: Any, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    """Add the command's arguments, but for the socket."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="keep a served model under load, and say how fast it answers",
        description="Starts client processes, each with channels of its own, and measures how long requests "
        "take. Without a rate each channel has so many requests in flight all the time (a closed loop); with "
        "one they arrive at random, and each counts from when it was to start, so that none hides the "
        "waiting of another (an open loop).",
    )
    parser.add_argument("model", metavar="MODEL", help="a model of the running daemon")
    parser.add_argument(
        "--clients", type=_whole(1, MOST_CLIENTS), default=1, metavar="N", help="client processes; default: 1"
    )
    parser.add_argument(
        "--channels",
        type=_whole(1, MOST_CHANNELS),
        default=1,
        metavar="K",
        help="of each client, which spreads its load over them; more than one with --policy spin; default: 1",
    )
    parser.add_argument(
        "--window",
        type=_whole(1, 2**20),
        metavar="W",
        help="the most requests of a channel in flight; default: 1, with a rate 32, or the slots there are",
    )
    parser.add_argument(
        "--burst",
        type=_whole(1, 2**20),
        default=1,
        metavar="B",
        help="without a rate: how many requests are filled before they are handed over together; default: 1",
    )
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument(
        "--rate", type=_rate, metavar="R", help="requests a second that arrive, of all clients together"
    )
    rates.add_argument(
        "--rates", type=_rates, metavar="R,...", help="several rates, one after the other: a curve"
    )
    rates.add_argument(
        "--saturation",
        action="store_true",
        help="search for the highest rate at which 99 of 100 requests are answered within --bound-us",
    )
    parser.add_argument(
        "--bound-us", type=_positive, default=1000.0, metavar="US", help="for --saturation; default: 1000"
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="how long to measure; default: 5, and 2 for each of several rates",
    )
    parser.add_argument(
        "--warm-up",
        type=_seconds_or_none,
        default=0.5,
        metavar="S",
        help="how long the load runs before; default: 0.5",
    )
    parser.add_argument(
        "--deadline-us",
        type=_positive,
        metavar="US",
        help="each request's deadline, from when it was to start",
    )
    parser.add_argument(
        "--dims",
        type=_dim,
        action="append",
        default=[],
        metavar="NAME=N",
        help="a dynamic dimension's size; repeatable",
    )
    parser.add_argument(
        "--range",
        type=_range,
        action="append",
        default=[],
        metavar="NAME=LOW:HIGH",
        help="an input's values, HIGH excluded; default: standard normal, whole numbers 0:10; repeatable",
    )
    parser.add_argument(
        "--policy",
        choices=("spin", "adaptive", "block"),
        default="adaptive",
        help="how clients wait; default: adaptive",
    )
    parser.add_argument(
        "--priority",
        choices=messages.PRIORITIES,
        default=messages.NORMAL,
        help="of the clients' channels: what is high runs before what is normal, of other programs too; "
        "default: normal",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare every answer with what the same inputs got alone; ends with 1 where one differs",
    )
    parser.add_argument("--inputs", type=_whole(1, MOST_SETS), default=16, metavar="N", help="how many sets")
    parser.add_argument(
        "--seed", type=_whole(0, 2**63 - 1), default=0, metavar="N", help="of arrivals and inputs; default: 0"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there, too")
    parser.set_defaults(run=run)
    return parser


def _whole(least: int, most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return whole


def _number(text: str, least: float, most: float, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
    return number


def _rate(text: str) -> float:
    return _number(text, 1e-3, 1e9, "requests a second, from 0.001 to 1e9")


def _rates(text: str) -> list[float]:
    return list(map(_rate, text.split(",")))


def _positive(text: str) -> float:
    return _number(text, 1e-3, 1e12, "microseconds, more than 0")


def _seconds(text: str) -> float:
    return _number(text, 1e-3, MOST_SECONDS, f"seconds, from 0.001 to {MOST_SECONDS:g}")


def _seconds_or_none(text: str) -> float:
    return _number(text, 0, MOST_SECONDS, f"seconds, from 0 to {MOST_SECONDS:g}")


def _dim(text: str) -> tuple[str, int]:
    name, separator, size = text.rpartition("=")
    if not separator or not name or not size.isdecimal():
        raise argparse.ArgumentTypeError(f"expected NAME=SIZE, such as N=1, got {text!r}")
    return name, int(size)


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, separator, limits = text.rpartition("=")
    low, colon, high = limits.partition(":")
    wanted = f"NAME=LOW:HIGH, such as rate=16000:16001, got {text!r}"
    if not separator or not name or not colon:
        raise argparse.ArgumentTypeError(f"expected {wanted}")
    least, most = (_number(each, -1e300, 1e300, wanted) for each in (low, high))
    if not least < most:
        raise argparse.ArgumentTypeError(f"the first must be the smaller: {text!r}")
    return name, (least, most)
