"""How many requests the instance of a model has run together with others: `python batched.py SOCKET MODEL`.

Of the first channel that is open on the model.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = next(
    folder for folder in Path(__file__).resolve().parents if (folder / "ipc_server" / "cli.py").is_file()
)
sys.path.insert(0, str(ROOT))

from ipc_server.abi import PAGE_BYTES  # noqa: E402
from ipc_server.ask import Conversation  # noqa: E402
from ipc_server.decode import decode_status  # noqa: E402


def main(socket: Path, model: str) -> None:
    """Print the number."""
    with Conversation(socket) as conversation:
        channels = conversation.pages("channels", "channels", "channel")
        number = next(channel["channel"] for channel in channels if channel["model"] == model)
        message = conversation.ask_for_fds("inspect", channel=number)
    try:
        page = os.pread(message.fds[1], PAGE_BYTES, message.body["page"] * PAGE_BYTES)
    finally:
        message.close_fds()
    print(decode_status(page).batched)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
