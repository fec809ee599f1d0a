"""A driver of the benchmark that measures nothing: its path says how it behaves."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

# Each call of the path takes so many nanoseconds, and one more with every call.
BASE_NS = {"floor": 1000, "ffi-locked": 2000, "ipc-native-spin": 1500, "pyml": 8000}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--server-core", type=int, required=True)
    parser.add_argument("--name")
    parser.add_argument("--socket")
    options = parser.parse_args()
    if options.path == "refuses":
        print("error model file is not to its liking")
        return 1
    if options.path == "mumbles":
        print("hello")
    if options.path == "stays-silent":
        time.sleep(600)
    child = subprocess.Popen(["sleep", "600"]) if options.path == "has-child" else None
    print(f"ready {child.pid}" if child else "ready", flush=True)
    for line in sys.stdin:
        if not answer(options.path, line.split()):
            return 1
    if child:
        child.kill()
        child.wait()
    return 3 if options.path == "ends-badly" else 0


def answer(path: str, words: list[str]) -> bool:
    if path == "dies":
        print("its last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if path == "fails" and words[0] == "call":
        print("error the engine failed", flush=True)
        return False
    if words[0] == "call":
        _, touch, count, _, file = words
        samples = np.arange(int(count), dtype="<u8") + BASE_NS.get(path, 5000) + int(touch) // 1024
        samples.tofile(file)
        said = int(count) + (path == "miscounts")
    else:
        _, seeds, file = words
        output = np.arange(4 * int(seeds), dtype="<f4")
        if path == "computes-differently":
            output[9] += 1
        Path(file).write_bytes(output.tobytes())
        said = int(seeds)
    print(f"done {said}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
