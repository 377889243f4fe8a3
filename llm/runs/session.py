"""A run from beginning to end: claim its directory, say where it comes from, record how it ended."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from llm import files, runtime
from llm.runs import provenance
from llm.runs.directory import RunDirectory, Status, read_metrics
from llm.runs.energy import EnergyMeter
from llm.runs.run import Run
from llm.runs.tracker import MakeTracker
from llm.types import ConfigError


@contextmanager
def session(
    config: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    hydra: Mapping[str, Any] | None = None,
    composed: Mapping[str, Any] | None = None,
    tracker: MakeTracker | None = None,
    group: str | None = None,
    resume: str | Path | None = None,
    report: Callable[[Path], object] | None = None,
    root: str | Path = "runs",
    console: Console | None = None,
) -> Iterator[Run]:
    """A recorded run of `config`; the body is the task.

    On leaving, `result.json` says ``done``, ``interrupted`` (KeyboardInterrupt) or ``failed`` (anything else,
    with the error), the tracker is finished, and after a done run `done.json` is written last. With several
    processes, call it inside `llm.runtime.process_group`: rank 0 names the directory and tells the others.

    Args:
        config: the resolved config; its `name`, `seed` and `run_dir` are read.
        overrides: what stood on the command line.
        hydra: Hydra's own part of the config.
        composed: the config before interpolations were resolved.
        tracker: the `tracker` component.
        group: the sweep's name, for its trials.
        resume: an earlier run's directory to go on in, instead of claiming a new one.
        report: writes the run's page; called with the directory once the result stands there, before
            `done.json`. Should it fail, that costs one line.
        root: where runs are kept.
        console: where people read; stderr when None.

    Raises:
        ConfigError: the directory cannot be claimed or resumed; the same error on every rank.
    """
    name, seed = str(config.get("name") or "run"), int(config.get("seed") or 0)
    claimed: RunDirectory | None = None
    answer: tuple[str, ...] = ()
    if runtime.is_main():
        try:
            if resume is not None:
                claimed = RunDirectory.reopen(resume, config)
            else:
                claimed = RunDirectory.claim(config, name=name, run_dir=config.get("run_dir"), root=root)
            answer = (str(claimed.path),)
        except ConfigError as error:
            answer = (error.key, str(error.value), error.mend)
    told = runtime.broadcast(answer)
    if len(told) == 3:
        raise ConfigError(*told)
    if claimed is None:
        yield Run(told[0], seed=seed, name=name, is_main=False)
        return
    try:
        claimed.write_config(config, hydra=hydra, overrides=overrides, composed=composed)
        yield from _recorded(claimed, config, name, seed, tracker, group, report, console)
    finally:
        claimed.release()


def _recorded(
    claimed: RunDirectory,
    config: Mapping[str, Any],
    name: str,
    seed: int,
    make_tracker: MakeTracker | None,
    group: str | None,
    report: Callable[[Path], object] | None,
    console: Console | None,
) -> Iterator[Run]:
    path = claimed.path
    earlier = [float(line["seconds"]) for line in read_metrics(path / "metrics.jsonl") if "seconds" in line]
    run = Run(
        path, seed=seed, name=name, console=console, elapsed_seconds=max(earlier, default=0.0), is_main=True
    )
    origin, sessions = provenance.collect(), _earlier_sessions(path)
    origin["seeds"] = {"seed": seed}
    record = {**origin, "earlier_sessions": sessions}
    files.write_json(path / "provenance.json", record)
    claimed.write_result("running", **run.result())
    meter = EnergyMeter().start()
    status: Status = "failed"
    why: dict[str, object] = {}
    refused = False
    try:
        if make_tracker is not None:
            more = {"group": group} if group else {}
            title = f"{name}-{path.name}"
            run.tracker = make_tracker(directory=path, config=config, name=title, warn=run.say, **more)
        yield run
        status = "done"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except BaseException as error:
        refused = isinstance(error, ConfigError)
        why = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        raise
    finally:
        run.close()
        result = run.result()
        try:
            run.tracker.finish(result, exit_code=0 if status == "done" else 1)
        finally:  # an impatient second Ctrl-C must not cost the record
            if not (refused and claimed.give_back()):
                ended = {"ended_at": provenance.now(), "energy": meter.stop(), "data": run.data}
                files.write_json(path / "provenance.json", {**record, **ended})
                claimed.write_result(status, **result, **why)
                if report is not None:
                    _report(report, path, run)
                if status == "done":
                    claimed.mark_done()


def _report(report: Callable[[Path], object], path: Path, run: Run) -> None:
    try:
        report(path)
    except Exception as error:
        run.say(f"warning: the report could not be written ({type(error).__name__}: {error})")


def _earlier_sessions(path: Path) -> list[Any]:
    """The provenance of the sessions before a resume, oldest first; the new one is about to take the file."""
    if not (path / "provenance.json").is_file():
        return []
    try:
        last = files.read_json(path / "provenance.json")
    except (OSError, ValueError):
        return []
    return [*last.pop("earlier_sessions", []), last]
