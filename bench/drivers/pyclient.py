"""The driver of the path `pyclient`: the Python client, spinning, on a model of a daemon.

pyclient.py --path pyclient --name MODEL --socket SOCKET
"""

from __future__ import annotations

import argparse
import sys

from bench.drivers import protocol
from ipc_server import client
from ipc_server.abi import Policy
from ipc_server.errors import SidecamlError


class Opened:
    """An open channel: its arrays are the same for every call, since it has one slot."""

    def __init__(self, channel: client.Channel) -> None:
        """Take its tensors."""
        signature = channel.model.signature
        self.inputs = [channel.input(tensor.name) for tensor in signature.inputs]
        self.outputs = [channel.output(tensor.name) for tensor in signature.outputs]
        self.run = channel.run


def arguments() -> argparse.Namespace:
    """Read the command line, which is that of all drivers."""
    parser = argparse.ArgumentParser(description=__doc__, exit_on_error=False)
    parser.add_argument("--path", choices=["pyclient"], required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--socket", required=True)
    for of_others in ("--model", "--server-core"):
        parser.add_argument(of_others, help="for other drivers")
    return parser.parse_args()


def main() -> int:
    """Drive."""
    try:
        asked = arguments()
        with client.open_model(asked.name, socket=asked.socket, policy=Policy.SPIN) as channel:
            protocol.serve(Opened(channel))
    except (argparse.ArgumentError, SidecamlError, OSError, ValueError) as error:
        return protocol.report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
