"""What carries out the work on shards: this process, processes of this machine, or a Ray cluster.

Every engine runs the same functions on the same shards, so what comes out is the same to the byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import Field

import llm
from llm.types import ConfigError

T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol):
    """Maps a function over items. Use it as a context manager: it may hold processes."""

    def __enter__(self) -> Engine: ...
    def __exit__(self, *_: object) -> None: ...

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """The results, each as soon as it is there, in any order."""
        ...


class Polars:
    """This machine: one process in which polars uses every core, or several of one polars thread each.

    Several processes are faster where steps are Python (fastText, HTML), at the price of as many shards in
    memory.

    Args:
        n_workers: Processes; 1 works in this one.
    """

    def __init__(self, n_workers: Annotated[int, Field(ge=1)] = 1) -> None:
        self.n_workers = n_workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Polars:
        if self.n_workers > 1:
            # spawned, for polars' threads do not survive a fork; the variables are read when it is imported
            names = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS")
            with _environment(dict.fromkeys(names, "1")):
                self._pool = ProcessPoolExecutor(self.n_workers, mp_context=get_context("spawn"))
                # all of them start now, while the variables stand
                for started in [self._pool.submit(_nothing, number) for number in range(self.n_workers)]:
                    started.result()
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """See `Engine`.

        Raises:
            ConfigError: a worker was killed, as the kernel does when memory runs out.
        """
        if self._pool is None:
            yield from map(work, items)
            return
        try:
            for done in as_completed([self._pool.submit(work, item) for item in items]):
                yield done.result()
        except BrokenProcessPool:
            mend = "a worker was killed, perhaps for want of memory; use fewer, or a smaller shard_bytes"
            raise ConfigError("curation.engine.n_workers", self.n_workers, mend) from None


class Ray:
    """Tasks on a Ray cluster: a local one of its own, or one that runs already.

    Machines of a cluster need the same code, and the run's folder and the sources on a file system they
    share.

    Args:
        address: `auto` or an address of a running cluster; a local one is started, and stopped, when null.
        n_cpus: Processors of a local cluster; all of the machine's when null.
        memory_bytes: Object store of a local cluster.
    """

    def __init__(
        self,
        address: str | None = None,
        n_cpus: Annotated[int, Field(ge=1)] | None = None,
        memory_bytes: Annotated[int, Field(ge=80_000_000)] = 200_000_000,
    ) -> None:
        self.address, self.n_cpus, self.memory_bytes = address, n_cpus, memory_bytes
        self._started = False

    def __enter__(self) -> Ray:
        ray = _ray()
        if ray.is_initialized():
            return self
        # workers import what this process imports, wherever it was started from
        root = str(Path(llm.__file__).resolve().parents[1])
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        variables = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "POLARS_MAX_THREADS": "1"}
        options: dict[str, Any] = {"runtime_env": {"env_vars": variables}, "log_to_driver": False}
        if self.address is None:
            options |= {
                "num_cpus": self.n_cpus or len(os.sched_getaffinity(0)),
                "object_store_memory": self.memory_bytes,
                "include_dashboard": False,
            }
        else:
            options["address"] = self.address
        try:
            ray.init(logging_level="ERROR", **options)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:160]
            mend = f"no Ray cluster there ({reason})"
            raise ConfigError("curation.engine.address", self.address, mend) from None
        self._started = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            _ray().shutdown()
            self._started = False

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """See `Engine`; a task whose machine is lost runs again elsewhere."""
        ray = _ray()
        task = ray.remote(num_cpus=1, max_retries=3)(_called)
        shared = ray.put(work)  # once, not with every item
        left = [task.remote(shared, item) for item in items]
        while left:
            done, left = ray.wait(left, num_returns=1)
            for reference in done:
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        mend = "needs the package ray: pip install -e '.[ray]'"
        raise ConfigError("curation.engine", "ray", mend) from None
    return ray


def _called(work: Callable[[T], R], item: T) -> R:
    return work(item)


def _nothing(_: object) -> None:
    return None


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables that processes started in the block inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
