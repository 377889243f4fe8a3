"""What stands between a composed config and the task it names: the run, its record, its verdict."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llm import runtime
from llm.config import ENTRY_KEYS, Invocation, escaped, recorded_overrides, resolved
from llm.migrations import migrate
from llm.runs import directory
from llm.runs.directory import RunRecord
from llm.sweeping.content import sweep_directory
from llm.tasks.execute import Outcome, agreed, differences, execute
from llm.tasks.reproduce import reproduce
from llm.types import ConfigError


@dataclass(frozen=True)
class Entry:
    """The keys every task accepts; see `conf/config.yaml`."""

    name: str | None
    run_dir: str | None
    seed: int
    reproduce: str | None
    allow_drift: bool
    restore_code: bool
    retry_failed: bool
    tracker: Any
    allow_targets: Sequence[str]
    config_version: int

    @staticmethod
    def of(config: DictConfig) -> Entry:
        """The entry keys of a composed config."""
        values = {key: config.get(key) for key in ENTRY_KEYS}
        for key, kind in {
            "seed": int,
            "allow_drift": bool,
            "restore_code": bool,
            "retry_failed": bool,
        }.items():
            if type(values[key]) is not kind:  # True is an int, and no seed
                raise ConfigError(key, values[key], f"must be of type {kind.__name__}")
        if not 0 <= values["seed"] < 2**63:
            raise ConfigError("seed", values["seed"], "must be from 0 to 2^63 - 1")
        return Entry(**values)


def launch(config: DictConfig, invocation: Invocation) -> float | None:
    """Runs one composed config; what `main.py` and every trial of a sweep call.

    Returns:
        The task's objective, which a sweeper may optimise.
    """
    gc.enable()
    entry = Entry.of(config)
    _stop_on_sigterm()
    with runtime.process_group():
        if entry.reproduce:
            return reproduce(entry.reproduce, config, invocation).objective
        if config.get("resume"):
            return resume(config, invocation).objective
        if invocation.multirun:
            return trial(config, invocation)
        return execute(config, invocation).objective


def trial(config: DictConfig, invocation: Invocation) -> float | None:
    """One cell of a sweep: skipped when done, continued when it was cut off, else run."""
    path = sweep_directory(invocation, config) / directory.fingerprint(resolved(config))[:12]
    record, is_done = agreed(lambda: (_begun(path), directory.is_done(path)))
    if record and (is_done or (record.status == "failed" and not config.retry_failed)):
        objective = record.result.get("metrics", {}).get("objective")
        return None if objective is None else float(objective)
    if runtime.is_main():
        said = [o for o in invocation.overrides if not o.startswith("sweeps=")]
        print(f"[trial] {' '.join(said)}", file=sys.stderr)
    config = config.copy()
    config.run_dir = str(path)
    if record and "resume" in config:
        config.resume = str(path)
    return execute(config, invocation, resume=path if record else None).objective


def _begun(path: Path) -> RunRecord | None:
    return directory.read(path) if (path / "config.yaml").is_file() else None


def resume(config: DictConfig, invocation: Invocation) -> Outcome:
    """Goes on with an earlier run, in its directory, under its saved config and what is overridden now.

    Raises:
        ConfigError: `resume` is not a run, or this command composes another config than the saved one.
    """
    record, repeated = agreed(lambda: _earlier(config.resume))
    saved = OmegaConf.create(escaped(migrate(record.config)))
    assert isinstance(saved, DictConfig)
    own = [o for o in invocation.overrides if o not in repeated]
    chosen = [o for o in own if _is_choice(o, invocation) and _key(o) not in directory.IMMATERIAL]
    given = [o for o in own if o not in chosen and _key(o) not in ("resume", "run_dir")]
    if chosen:
        _refuse_another_config(saved, config, given)
    for key in map(_key, given):
        OmegaConf.update(saved, key, OmegaConf.select(config, key), force_add=True, merge=False)
    saved.resume = str(record.directory)
    return execute(saved, invocation, resume=record.directory)


def _earlier(path: str) -> tuple[RunRecord, list[str]]:
    """A run, and its command line; nothing of that when it was killed before it wrote it down."""
    record = directory.read(path, key="resume")
    try:
        # Of a key that stood there twice the last one counted.
        return record, list({_key(o): o for o in recorded_overrides(record.directory)}.values())
    except (OSError, ValueError):
        return record, []


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _is_choice(override: str, invocation: Invocation) -> bool:
    return _key(override).partition("@")[0] in {str(g).partition("@")[0] for g in invocation.choices}


def _refuse_another_config(saved: DictConfig, now: DictConfig, given: Sequence[str]) -> None:
    overridden = {*map(_key, given)}
    for line in differences(resolved(saved), resolved(now)):
        if line[0] not in overridden:
            raise ConfigError("resume", saved.get("resume") or now.resume,
                              f"that run has {line[0]}={line[1]}, this command {line[2]}; "
                              "give resume= alone, or start a new run")  # fmt: skip


def _stop_on_sigterm() -> None:
    """SIGTERM (a cluster's notice) stops like Ctrl-C does: with a whole checkpoint."""

    def stop(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
