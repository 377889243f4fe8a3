"""Who watches a run besides its own record: Weights & Biases, or nobody.

A tracker is told of everything and may fail at any of it: that costs one line of warning, never the run.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import urlparse

from llm import files
from llm.runs.directory import flat


@runtime_checkable
class Tracker(Protocol):
    """Told of a run's metrics, tables and end. `stage` is None for a task run alone."""

    def log(self, metrics: Mapping[str, Any], *, step: int, stage: str | None) -> None:
        """One point of every curve."""
        ...

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, stage: str | None
    ) -> None:
        """A table of results or samples."""
        ...

    def finish(self, summary: Mapping[str, Any], *, exit_code: int) -> None:
        """The run is over, well (0) or not; called once, whatever happened."""
        ...


@runtime_checkable
class MakeTracker(Protocol):
    """What a `tracker` config builds: a tracker, once the run is there to be watched."""

    def __call__(
        self,
        *,
        directory: Path,
        config: Mapping[str, Any],
        name: str,
        warn: Callable[[str], None],
        **more: Any,
    ) -> Tracker:
        """Begins to watch."""
        ...


class NoTracker:
    """Nobody watches."""

    def __init__(
        self,
        *,
        directory: Path | None = None,
        config: Mapping[str, Any] | None = None,
        name: str = "",
        warn: Callable[[str], None] = print,
        group: str | None = None,
    ) -> None:
        """Takes what every tracker takes, and needs none of it."""

    def log(self, metrics: Mapping[str, Any], *, step: int, stage: str | None) -> None:
        """Nothing."""

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, stage: str | None
    ) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, Any], *, exit_code: int) -> None:
        """Nothing."""


class WandbTracker:
    """A Weights & Biases run whose files lie under the run's directory, in `wandb/`.

    Every metric is named ``<stage>/<metric>`` and drawn over ``<stage>/step``, because each stage of a
    lifecycle counts its steps from zero while W&B's own step only grows.
    """

    def __init__(
        self,
        *,
        directory: Path,
        config: Mapping[str, Any],
        name: str,
        warn: Callable[[str], None] = print,
        project: str = "llm",
        entity: str | None = None,
        group: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
    ) -> None:
        """Args:
        directory: the run's directory.
        config: the resolved config.
        name: the run's name in the list of runs.
        warn: told when W&B fails.
        project: the W&B project.
        entity: the W&B user or team; the one logged in when None.
        group: runs of one group stand together: a sweep's trials.
        mode: ``auto`` is online when the user is logged in, else offline; ``WANDB_MODE`` has its say.
        """
        self._warn = warn
        self._known: set[str | None] = set()
        self._run: Any = None
        chosen: Any = mode
        if mode == "auto":
            chosen = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")

        def begin() -> Any:
            import wandb  # most of a second: only when somebody watches

            directory.mkdir(parents=True, exist_ok=True)
            return wandb.init(
                dir=directory,
                project=project,
                entity=entity,
                group=group,
                name=name,
                mode=chosen,
                config=dict(config),
                reinit="create_new",  # a second run of this process is a second run there too
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_git=True,
                    disable_code=True,
                    # What they collect stands in provenance.json; two fewer threads beside the training.
                    x_disable_stats=True,
                    x_disable_machine_info=True,
                    init_timeout=20.0,
                ),
            )

        self._run = self._try(begin)

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            text = str(error).strip().splitlines()
            what = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
            self._warn(
                f"warning: Weights & Biases stopped ({what}); the run goes on, its own record is complete"
            )
            self._run, failed = None, self._run
            if failed is not None:
                with suppress(Exception):  # it has failed already; the warning is out
                    failed.finish(exit_code=1)
            return None

    def log(self, metrics: Mapping[str, Any], *, step: int, stage: str | None) -> None:
        """One point of every curve."""
        if self._run is not None:
            prefix = f"{stage}/" if stage else ""
            values = {prefix + key: files.number(value) for key, value in metrics.items()}
            self._try(lambda: self._log(stage, {**values, f"{prefix}step": step}))

    def _log(self, stage: str | None, values: dict[str, Any]) -> None:
        if stage not in self._known:
            self._known.add(stage)
            prefix = f"{stage}/" if stage else ""
            self._run.define_metric(f"{prefix}step", hidden=True)
            self._run.define_metric(f"{prefix}*", step_metric=f"{prefix}step")
        self._run.log(values)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, stage: str | None
    ) -> None:
        """A table: evaluations, sample generations."""
        if self._run is not None:
            key = f"{stage}/{name}" if stage else name
            self._try(lambda: self._run.log({key: _table(columns, rows)}))

    def finish(self, summary: Mapping[str, Any], *, exit_code: int) -> None:
        """Writes the summary and the exit record, and waits until they are on disk (or uploaded)."""
        if self._run is not None:
            self._try(
                lambda: self._run.summary.update({k: files.number(v) for k, v in flat(summary, "/").items()})
            )
        if self._run is not None:
            self._try(lambda: self._run.finish(exit_code=exit_code))
            self._run = None


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Any:
    import wandb

    # W&B wants one type a column; a column that mixes them becomes text.
    kinds: list[set[type]] = [
        {float if type(row[i]) is int else type(row[i]) for row in rows if row[i] is not None}
        for i in range(len(columns))
    ]
    mixed = [len(kind) > 1 or not kind <= {float, str, bool} for kind in kinds]
    data: Any = [
        [
            str(value) if is_mixed and value is not None else value
            for value, is_mixed in zip(row, mixed, strict=True)
        ]
        for row in rows
    ]
    return wandb.Table(columns=list(columns), data=data)


def _logged_in() -> bool:
    """Whether a key for W&B is there: in the environment, or in netrc for its host."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC") or Path("~/.netrc")).expanduser()
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
