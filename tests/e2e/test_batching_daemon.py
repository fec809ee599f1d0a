"""Clients of one model whose requests a worker runs together: a daemon, and the bits of single requests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import models
import pytest
from batch_clients import clients, session
from conftest import StartDaemon
from daemon_process import wait_until


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    return models.dynamic_mlp(tmp_path / "mlp.onnx")


def test_requests_of_two_clients_are_run_together_with_the_bits_of_single_ones(
    daemon: StartDaemon, mlp: Path
) -> None:
    with clients(daemon({"mlp": mlp}), session(mlp)) as both:
        both.run_together()
        both.run(2)
        both.run(2)


def test_a_successor_batches_by_the_proof_of_the_first_worker(daemon: StartDaemon, mlp: Path) -> None:
    running = daemon({"mlp": mlp}, standbys=1)
    with clients(running, session(mlp)) as both:
        both.run_together()
        running.wait_logged("is warm")
        first = both.worker()
        os.kill(first, signal.SIGKILL)
        wait_until("a standby has taken over", lambda: both.worker() not in (0, first))
        both.run_together()
    assert running.log().count("batching, after ") == 1
