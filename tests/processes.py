"""Whole processes of the command line, many of them cheaply, to be killed and interrupted from outside.

A process of `python main.py` spends seconds on importing torch before it does anything. `Forks` starts one
process that has imported everything, and forks a child for each command: the child has a process id, files
and signal handlers of its own, and nothing of it is left after a SIGKILL but what is on the disk.
`Spawned` starts the real `python main.py`; both have the same methods.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tests.conftest import REPOSITORY

SERVER = """
import json, os, signal, sys
import torch, torch._dynamo, torch.distributed
from llm.checking import check
from llm.config import cli, compose
from llm.reports import plots
from llm.runs import provenance
import llm.tasks.launch

torch.set_num_threads(1)
for task in "pretrain", "lifecycle":  # imports what they name, and finds Hydra's plugins
    try:
        check(compose(["task=" + task]))
    except ExceptionGroup:
        pass  # they lack required values
provenance.packages(), provenance.dependencies()  # kept for the process's life
with plots.figure(1, 1) as (drawn, axes):
    plots.svg(drawn, "warm", "")
print("{}", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        code = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
        print(json.dumps(code), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(log, 1), os.dup2(log, 2)
        os.chdir(asked["home"])
        os.environ.update(asked["env"])
        sys.argv = [asked["main"], *asked["arguments"]]
        try:
            code = cli("llm.tasks.launch:launch")
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(pid, flush=True)
"""


class Starter(Protocol):
    """How a command is started as a process."""

    def start(self, *arguments: str, home: Path, env: Mapping[str, str] | None = None) -> Command: ...


class Command:
    """A command under way in a process of its own.

    Attributes:
        pid: the process.
        log: what it prints.
    """

    def __init__(self, pid: int, log: Path, wait: Callable[[], int]) -> None:
        self.pid, self.log, self._wait = pid, log, wait
        self.began = time.monotonic()

    def wait(self) -> int:
        """The exit code; negative is the signal that ended it."""
        return self._wait()

    def signal_after(self, number: int, seconds: float, until: Callable[[], bool] = lambda: True) -> None:
        """Sends a signal once `seconds` have passed since the start and `until` says so."""
        rest = self.began + seconds - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        wait_until(until, lambda: not self.is_running(), pause=0.0003)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"


def wait_until(true: Callable[[], bool], otherwise: Callable[[], bool], pause: float) -> None:
    """Until either of them; an error after two minutes."""
    end = time.monotonic() + 120
    while not (true() or otherwise()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(pause)


class Forks:
    """Forks a child of a process that has imported torch for each command."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._n = 0
        self._answer()

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())

    def _ask(self, **question: Any) -> Any:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def start(self, *arguments: str, home: Path, env: Mapping[str, str] | None = None) -> Command:
        self._n += 1
        log = home / f"log-{self._n}.txt"
        pid = self._ask(
            arguments=arguments,
            home=str(home),
            env=dict(env or {}),
            log=str(log),
            main=str(REPOSITORY / "main.py"),
        )
        return Command(pid, log, lambda: int(self._ask(wait=pid)))

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)


class Spawned:
    """The real `python main.py` for each command."""

    def start(self, *arguments: str, home: Path, env: Mapping[str, str] | None = None) -> Command:
        log = home / f"log-{time.monotonic_ns()}.txt"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, str(REPOSITORY / "main.py"), *arguments],
                cwd=home,
                env={**os.environ, **(env or {})},
                stdout=stream,
                stderr=stream,
            )
        return Command(process.pid, log, lambda: process.wait(300))


@functools.cache
def forks() -> Forks:
    """One for all tests: starting it takes as long as starting a run."""
    made = Forks()
    atexit.register(made.close)
    return made


INTERRUPT, KILL, TERMINATE = signal.SIGINT, signal.SIGKILL, signal.SIGTERM
