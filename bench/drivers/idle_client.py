"""A client that opens channels and calls each slot of each once, then does nothing until its input ends.

    python -m bench.drivers.idle_client --socket S --name NAME --slots N

Told `open N`, it opens so many more and answers `open TOTAL`, with the bytes of a channel's tensors.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from ipc_server import client


def main() -> None:
    """Do what comes in, line by line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--slots", required=True, type=int)
    chosen = parser.parse_args()
    with contextlib.ExitStack() as channels:
        total, tensor_bytes = 0, 0
        for line in sys.stdin:
            for _ in range(int(line.removeprefix("open "))):
                channel = client.open_model(chosen.name, slots=chosen.slots, socket=chosen.socket)
                channels.enter_context(channel)
                tensor_bytes = chosen.slots * _call_once(channel, chosen.slots)
                total += 1
            print(f"open {total} {tensor_bytes}", flush=True)


def _call_once(channel: client.Channel, slots: int) -> int:
    """Have every slot run once; the bytes of one's tensors."""
    signature = channel.model.signature
    for _ in range(slots):
        slot = channel.claim()
        for tensor in signature.inputs:
            channel.input(tensor.name, slot)[:] = 0
        channel.run()
    inputs = sum(channel.input(tensor.name).nbytes for tensor in signature.inputs)
    return inputs + sum(channel.output(tensor.name).nbytes for tensor in signature.outputs)


if __name__ == "__main__":
    main()
