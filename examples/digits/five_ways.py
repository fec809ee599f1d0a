"""One OCaml program, five ways to run the model: `python five_ways.py PROGRAM FOLDER`.

The folder has what train.py and `sidecaml export` wrote. The same program, program.exe, reads the same digits
with the model as ONNX, TorchScript, an exported program (.pt2) and numpy in Python, where only the daemon's
configuration changes, and as ONNX in its own process. Every score is compared with PyTorch's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import network
import numpy as np
import torch
from numpy.typing import NDArray

from ipc_server.abi import Dtype
from ipc_server.export.distance import ulps
from ipc_server.export.own_daemon import own_daemon

HERE = Path(__file__).resolve().parent
# As program.ml has it: how many images go into one request.
BATCH = 64
SIGNATURE = """inputs = { images = "float32[N,64]" }
outputs = { scores = "float32[N,10]" }
"""
CONFIGURATIONS = {
    "ONNX": """path = "digits.onnx"
""",
    "TorchScript": f"""engine = "torch"
path = "digits.ts"
{SIGNATURE}""",
    "exported program": f"""engine = "torch"
path = "digits.pt2"
{SIGNATURE}""",
    "Python callable": f"""engine = "python"
callable = "numpy_network:Scores"
python_path = ["{HERE}", "."]
{SIGNATURE}""",
}
IN_PROCESS = "in process"

Scores = NDArray[np.float32]


def write_models(folder: Path) -> Scores:
    """Write the model in its other forms; PyTorch's own scores."""
    module = network.build()
    module.load_state_dict(torch.load(folder / "digits.pt", weights_only=True))
    module.eval()
    images = torch.from_numpy(np.load(folder / "images.npy"))
    with warnings.catch_warnings():
        # It has been superseded, and is still what many have.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(folder / "digits.ts"))
    program = torch.export.export(
        module, (images[:BATCH],), dynamic_shapes={"images": {0: torch.export.Dim("N")}}
    )
    torch.export.save(program, folder / "digits.pt2")
    np.savez(folder / "digits.npz", **{name: value.numpy() for name, value in module.state_dict().items()})
    with torch.inference_mode():
        return torch.cat([module(part) for part in images.split(BATCH)]).numpy()


def run(program: Path, folder: Path, *arguments: str, socket: str = "") -> tuple[str, Scores]:
    """Run the OCaml program: what it says, and the scores."""
    command = [str(program), str(folder / "images.npy"), str(folder / "digits.npy")]
    environment = {**os.environ, "SIDECAML_SOCKET": socket}
    said = subprocess.run(
        [*command, "--scores", str(folder / "scores.npy"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    return said.strip(), np.load(folder / "scores.npy")


def served(program: Path, folder: Path, way: str) -> tuple[str, Scores]:
    """Run it with a daemon of this configuration."""
    file = folder / f"{way.replace(' ', '-')}.toml"
    file.write_text(f"[models.digits]\n{CONFIGURATIONS[way]}", encoding="utf-8")
    with own_daemon("--config", str(file)) as socket:
        return run(program, folder, socket=socket)


def main(program: Path, folder: Path) -> None:
    """Run all five and compare."""
    torch.set_num_threads(1)
    expected = write_models(folder)
    found = {way: served(program, folder, way) for way in CONFIGURATIONS}
    found[IN_PROCESS] = run(program, folder, "--in-process", str(folder / "digits.onnx"))
    worst = 0.0
    for way, (said, scores) in found.items():
        apart = float(np.abs(scores - expected).max())
        worst = max(worst, apart)
        farthest = ulps(Dtype.FLOAT32, scores, expected).max()
        print(f"{way:18}{said}; from PyTorch at most {apart:.2g}, {farthest:.0f} ULP")
    if found["ONNX"][1].tobytes() != found[IN_PROCESS][1].tobytes():
        sys.exit("the daemon and the program's own process differ in a bit")
    print(f"five ways: the largest difference is {worst:.2g}; the daemon's ONNX and in process: same bits")


if __name__ == "__main__":
    try:
        executable, target = sys.argv[1:]
    except ValueError:
        sys.exit(__doc__)
    main(Path(executable).resolve(), Path(target).resolve())
