"""The engine `torch` behind a daemon: one network in every form, and files that cannot be served."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from conftest import StartDaemon
from daemon_process import wait_until

from ipc_server.abi import ErrorCode
from ipc_server.client import Channel, open_model
from ipc_server.errors import SidecamlError

CALLABLES = Path(__file__).resolve().parents[1] / "callables"
ROWS = 5
SIGNATURE = 'inputs = { x = "float32[N,8]" }\noutputs = { y = "float32[N,3]" }\n'


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(x))


GOOD = ("script", "export", "factory")
BAD = {
    "pickled": "is a pickle that would execute code as it is read: it holds more than weights",
    "cut": "cut.pt: its archive is damaged, or its end is missing",
}


def written(folder: Path, names: Iterable[str]) -> Path:
    """Write one network in every form, and a configuration that serves the forms of these names."""
    net = Net().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net), str(folder / "script.pt"))
    dims = {"x": {0: torch.export.Dim("N", min=1, max=64)}}
    torch.export.save(
        torch.export.export(net, (torch.zeros(4, 8),), dynamic_shapes=dims), folder / "export.pt2"
    )
    torch.save(net.state_dict(), folder / "weights.pt")
    torch.save(net, folder / "pickled.pt")
    (folder / "cut.pt").write_bytes((folder / "script.pt").read_bytes()[:2000])
    (folder / "mine.py").write_text(
        "import torch\n"
        "def build():\n"
        "    net = torch.nn.Module()\n"
        "    net.layer = torch.nn.Linear(8, 3)\n"
        "    net.forward = lambda x: torch.tanh(net.layer(x))\n"
        "    return net\n"
    )
    forms = {
        "script": f'path = "script.pt"\n{SIGNATURE}',
        "export": f'path = "export.pt2"\n{SIGNATURE}',
        "factory": f'callable = "mine:build"\nweights = "weights.pt"\n{SIGNATURE}',
        "pickled": f'path = "pickled.pt"\n{SIGNATURE}',
        "cut": f'path = "cut.pt"\n{SIGNATURE}',
    }
    config = folder / "sidecaml.toml"
    config.write_text("".join(f'[models.{name}]\nengine = "torch"\n{forms[name]}\n' for name in names))
    return config


def answer(channel: Channel, x: np.ndarray) -> np.ndarray:
    slot = channel.claim()
    channel.set_dims("x", x.shape, slot)
    channel.input("x", slot)[...] = x
    channel.run(60)
    return channel.output("y", slot).copy()


def serve(daemon: StartDaemon, config: Path, models: Mapping[str, Path]) -> str:
    """Start a daemon, with patience: each of its workers imports PyTorch."""
    running = daemon(models, f"--config={config}", ready=False)
    wait_until("the models are loaded", lambda: "ready: " in running.log(), patience_s=110)
    return str(running.socket)


def test_one_network_has_the_same_bits_in_every_form(daemon: StartDaemon, tmp_path: Path) -> None:
    socket = serve(daemon, written(tmp_path, GOOD), {})
    x = np.random.default_rng(5).standard_normal((ROWS, 8)).astype(np.float32)
    with torch.inference_mode():
        expected = Net().eval()(torch.from_numpy(x)).numpy()
    for name in GOOD:
        with open_model(name, socket=socket, dims={"N": ROWS}) as channel:
            assert answer(channel, x).tobytes() == expected.tobytes(), name


def test_files_that_cannot_be_served_cost_their_models(daemon: StartDaemon, tmp_path: Path) -> None:
    neighbour = models.identity("float32", (1,), tmp_path / "neighbour.onnx")
    socket = serve(daemon, written(tmp_path, BAD), {"neighbour": neighbour})
    for name, cause in BAD.items():
        with pytest.raises(SidecamlError) as caught:
            open_model(name, socket=socket, dims={"N": ROWS})
        assert caught.value.code is ErrorCode.MODEL_FAILED
        assert f"model '{name}' could not be loaded: " in str(caught.value)
        assert cause in str(caught.value)
    with open_model("neighbour", socket=socket) as channel:
        channel.input("x", channel.claim())[...] = 2
        assert channel.output("y", channel.run(60)) == [2]


def test_state_is_carried_for_modules_and_functions(daemon: StartDaemon, tmp_path: Path) -> None:
    (tmp_path / "step.py").write_text(
        "import torch\n"
        "def add(x, state):\n"
        "    return x + state, x + state\n"
        "class Add(torch.nn.Module):\n"
        "    def forward(self, x, state):\n"
        "        return add(x, state)\n"
    )
    shared = (
        'inputs = { x = "float32[2]", state = "float32[2]" }\n'
        'outputs = { y = "float32[2]", next = "float32[2]" }\nstate = { next = "state" }\n'
    )
    config = tmp_path / "sidecaml.toml"
    config.write_text(
        f'[models.function]\nengine = "python"\ncallable = "step:add"\n{shared}'
        f'[models.module]\nengine = "torch"\ncallable = "step:Add"\n{shared}'
    )
    socket = serve(daemon, config, {})
    for name in ("function", "module"):
        with open_model(name, socket=socket, slots=2) as channel:
            for number in (1, 2, 3):
                assert total(channel) == number
            channel.reset()
            assert total(channel) == 1


def total(channel: Channel) -> float:
    channel.input("x", channel.claim())[...] = 1
    return float(channel.output("y", channel.run(60))[1])
