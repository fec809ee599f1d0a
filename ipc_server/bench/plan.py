"""What a load is made of, as the command says it to its client processes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ipc_server import messages
from ipc_server.abi import Policy


@dataclass(frozen=True, slots=True)
class Plan:
    """What every client of a benchmark does."""

    model: str
    socket: str
    clients: int
    # Requests of one channel that are in flight, and so its slots.
    window: int
    # In a closed loop: how many are filled before they are handed over together.
    burst: int
    # Of measuring, after so many of warm-up.
    seconds: float
    warm_up: float
    policy: Policy
    seed: int
    # Different inputs, of which each request gets one.
    sets: int
    check: bool
    # From when a request was to start; 0 for none.
    deadline_ns: int
    dims: dict[str, int]
    # The values of an input, the second excluded; of others standard normal, whole numbers 0 to 9.
    ranges: dict[str, tuple[float, float]]
    # The processors of the clients; empty for those of the command.
    cpus: list[int] = field(default_factory=list)
    # Of every client's channels: one of messages.PRIORITIES.
    priority: str = messages.NORMAL
    # Of one client, which looks at them in turn; more than one with SPIN only.
    channels: int = 1

    def to_json(self) -> dict[str, Any]:
        """Give it in a form for JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"policy": self.policy.name}

    @classmethod
    def of_json(cls, body: dict[str, Any]) -> Plan:
        """Take it out of that form."""
        plan = cls(**body)
        ranges = {name: (limits[0], limits[1]) for name, limits in plan.ranges.items()}
        return replace(plan, policy=Policy[body["policy"]], ranges=ranges)


@dataclass(frozen=True, slots=True)
class Turn:
    """One load: when it is, and how many requests a second each client sends; 0 for a closed loop."""

    rate: float
    start_ns: int
    measure_ns: int
    end_ns: int
