"""One model of the daemon: keeps a worker that serves it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from ipc_server import longest_run, settings
from ipc_server.abi import ErrorCode
from ipc_server.channel import Channels
from ipc_server.config import Config
from ipc_server.config_models import ModelConfig
from ipc_server.errors import SidecamlError
from ipc_server.signature import Signature, signature_of, text_of
from ipc_server.worker_process import WorkerProcess

log = logging.getLogger(__name__)

# One that dies while it loads may have been killed for lack of memory; one that does it thrice will go on.
LOAD_ATTEMPTS = 3
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
# A worker that lived this long was well: the next one starts without a longer pause.
STEADY_S = 60.0
_MOST_DOUBLINGS = 16


class Model:
    """A model, the worker that has it loaded, and what is known about both."""

    def __init__(self, config: ModelConfig, daemon: Config, channels: Channels) -> None:
        """Know the model; `run` serves it."""
        self.config = config
        self.state = "loading"
        self.problem = ""
        self.signature = Signature((), ())
        self.worker: WorkerProcess | None = None
        # Set while the model is not loading.
        self.settled = asyncio.Event()
        self._served = False
        self._log_level = daemon.log_level
        self._load_timeout_s = daemon.limits.load_timeout_s
        self._channels = channels
        self._stopping = asyncio.Event()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.name

    def describe(self) -> dict[str, Any]:
        """Give the protocol's form."""
        ready = self.state == "ready"
        return {
            "name": self.name,
            "engine": self.config.engine,
            "state": self.state,
            "problem": self.problem,
            "fingerprint": self.signature.fingerprint if ready else 0,
            "max_slots": self.config.max_slots,
            **(self.signature if ready else Signature((), ())).describe(),
        }

    async def run(self) -> None:
        """Keep a worker alive until the model is stopped or cannot be loaded."""
        deaths = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            await self._one_life()
            deaths = 0 if time.monotonic() - began > STEADY_S else deaths + 1
            if self._is_hopeless(deaths):
                return
            await self._pause(pause_after(deaths))

    async def stop(self, timeout_s: float) -> None:
        """Let the worker finish what was asked of it, within the time, and end it."""
        self._stopping.set()
        self.settled.set()
        worker = self.worker
        if not worker:
            return
        # Nobody waits for what a worker without a channel may still run.
        if self.state == "ready" and self._channels.of(worker):
            await self._drain(worker, timeout_s)
        worker.kill()

    def kill(self) -> None:
        """End the worker at once."""
        self._stopping.set()
        self.settled.set()
        if self.worker:
            self.worker.kill()

    async def usable_worker(self) -> WorkerProcess:
        """Wait while it loads; give the worker that serves it. Raises MODEL_FAILED or SHUTTING_DOWN."""
        await self.settled.wait()
        if self._stopping.is_set():
            raise SidecamlError(
                ErrorCode.SHUTTING_DOWN, "the daemon is shutting down: it opens no more channels"
            )
        if self.state != "ready" or not self.worker:
            raise SidecamlError(
                ErrorCode.MODEL_FAILED, f"model {self.name!r} could not be loaded: {self.problem}"
            )
        return self.worker

    async def _one_life(self) -> None:
        """Start a worker, load the model, and stay until the worker is gone."""
        self._enter("loading")
        try:
            worker = WorkerProcess(self.name, self._log_level)
        except (OSError, SidecamlError) as error:
            self._enter("failed", f"no worker could be started: {error}", True)
            return
        self.worker = worker
        try:
            await self._load(worker)
            await self._serve(worker)
        except SidecamlError as error:
            crashed = error.code is ErrorCode.WORKER_CRASHED
            self._enter(
                "failed", f"the worker {worker.ending} while it loaded" if crashed else str(error), crashed
            )
        except OSError as error:
            self._enter("failed", f"its worker could not be given descriptors: {error.strerror}", True)
        except Exception:
            # Unseen, it would end the task that starts the next worker, and with it the model.
            log.exception("model %s: worker %d is given up", self.name, worker.pid)
            self._enter("failed", "it could not be loaded for a reason inside the daemon: its log says more")
        finally:
            self._lose(worker)
            await worker.close()

    async def _load(self, worker: WorkerProcess) -> None:
        config = self.config
        began = time.monotonic()
        try:
            body = await worker.request(
                "load",
                [worker.status_fd],
                timeout_s=self._load_timeout_s,
                policy=config.policy,
                **settings.encode(config),
            )
        except TimeoutError:
            raise SidecamlError(
                ErrorCode.MODEL_FAILED,
                f"{config.origin} did not load within {self._load_timeout_s:g} s: raise load_timeout_s",
            ) from None
        self.signature = signature_of(body)
        self._served = True
        self._enter("ready")
        log.info(
            "model %s: ready in %.2f s, worker %d, %s, in: %s, out: %s",
            self.name,
            time.monotonic() - began,
            worker.pid,
            config.origin,
            text_of(self.signature.inputs),
            text_of(self.signature.outputs),
        )

    async def _serve(self, worker: WorkerProcess) -> None:
        """Stay until the worker is gone, and see to it that none of its requests runs for ever."""
        enforcing = asyncio.create_task(longest_run.enforce(worker, self.config.longest_run_s))
        try:
            await worker.wait_gone()
        finally:
            enforcing.cancel()

    async def _drain(self, worker: WorkerProcess, timeout_s: float) -> None:
        try:
            await worker.request("drain", timeout_s=timeout_s)
        except TimeoutError:
            log.warning(
                "model %s: worker %d still runs after %g s: it is killed", self.name, worker.pid, timeout_s
            )
            return
        except SidecamlError as error:
            log.warning("model %s: worker %d cannot finish its requests: %s", self.name, worker.pid, error)
            return
        await worker.exits_within(timeout_s)

    def _lose(self, worker: WorkerProcess) -> None:
        """Tell everybody that the worker is gone."""
        self.worker = None
        if self._stopping.is_set():
            error = SidecamlError(
                ErrorCode.SHUTTING_DOWN, "the daemon is shutting down: connect again when it is back"
            )
        else:
            error = SidecamlError(
                ErrorCode.SERVER_GONE,
                f"the worker of model {self.name!r} {worker.ending}: open the model again",
            )
        if self.state == "ready" and not self._stopping.is_set():
            log.error("model %s: worker %d %s: starting another", self.name, worker.pid, worker.ending)
            self._enter("loading")
        self._channels.worker_gone(worker, error)

    def _enter(self, state: str, problem: str = "", crashed: bool = False) -> None:
        self.state, self.problem = state, problem
        if state == "failed" and not self._stopping.is_set():
            log.error("model %s: %s", self.name, problem)
        # Opens wait for a model that may yet come back.
        if state == "loading" or (crashed and not self._stopping.is_set()):
            self.settled.clear()
        else:
            self.settled.set()

    def _is_hopeless(self, deaths: int) -> bool:
        """Whether another worker would only fail as well: never for a model that was served once."""
        if self._stopping.is_set():
            return True
        if self.state != "failed" or self._served:
            return False
        if not self.settled.is_set() and deaths < LOAD_ATTEMPTS:
            return False
        self.settled.set()
        return True

    async def _pause(self, seconds: float) -> None:
        log.info("model %s: next worker in %.1f s", self.name, seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def pause_after(deaths: int) -> float:
    """Give the seconds to wait before the next worker, after that many that died young in a row."""
    doublings = min(max(deaths - 1, 0), _MOST_DOUBLINGS)
    return min(FIRST_PAUSE_S * 2.0**doublings, LONGEST_PAUSE_S)
