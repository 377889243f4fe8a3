"""From a composed config to a recorded run: what a launch, a resume, a trial and a reproduction share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from omegaconf import DictConfig, OmegaConf

from llm import files, runtime
from llm.checking import check
from llm.config import ALLOWED_TARGETS, ENTRY_KEYS, Invocation, allowed_targets, build, find, resolved
from llm.reports import page
from llm.runs import directory
from llm.runs.session import session
from llm.sweeping.content import sweep_directory
from llm.types import ConfigError

T = TypeVar("T")


class Outcome(NamedTuple):
    """Where a run's record lies, and what its task returned."""

    directory: Path
    objective: float | None


def run_name(config: DictConfig, invocation: Invocation) -> str:
    """`runs/<name>`: what the user says, else the preset, else the task (``quickstart`` for the default)."""
    choices = invocation.choices
    task = "quickstart" if choices.get("task") == "lifecycle" else choices.get("task")
    return str(config.get("name") or choices.get("experiments") or task)


def execute(config: DictConfig, invocation: Invocation, *, resume: Path | None = None) -> Outcome:
    """Checks a config, runs its task inside a recorded session, and says where the record lies.

    Args:
        config: A composed config with its entry keys.
        invocation: What Hydra knows of it.
        resume: The earlier run to go on with in its own directory.
    """
    check(config)
    container = {**resolved(config), "name": run_name(config, invocation)}
    composed = OmegaConf.to_container(config, resolve=False)
    assert isinstance(composed, dict)
    runtime.seed_everything(config.seed)
    task = {key: value for key, value in resolved(config).items() if key not in ENTRY_KEYS}
    sources = dict(outside_code(task))
    if task.get("_recursive_", True):  # else it builds its parts, and says what they read, itself
        sources |= data_digests(task)  # before a folder is claimed: a file may be missing
    with session(
        container,
        overrides=invocation.overrides,
        hydra=invocation.hydra["hydra"],
        composed={str(key): value for key, value in composed.items()},
        tracker=build(config.tracker) if config.get("tracker") else None,
        group=sweep_directory(invocation, config).name if is_trial(invocation) else None,
        resume=resume,
        report=page.write,
    ) as run:
        for name, digest in sources.items():
            run.note_data(name, digest)
        if resume and "resume" not in task:  # it cannot go on where it was cut off: it starts anew
            run.rewind(-1)
        try:
            objective = build(task, run=run)
        except KeyboardInterrupt:
            if "resume" in task:
                run.say(f"stopped; go on with:  python main.py resume={run.directory}")
            raise
        run.summary.setdefault("objective", objective)
    if "val_loss" in run.summary:
        run.say(f"validation loss {run.summary['val_loss']:.4f}")
    run.say(f"recorded in {run.directory}")
    return Outcome(run.directory, objective)


def data_digests(config: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Where a resolved config reads data from outside, and the data's digest.

    Args:
        config: A task's, or a part of one.
        path: Where it stands in the whole config.

    Raises:
        ConfigError: data is not there; the key is its full config path.
    """
    if isinstance(config, (list, tuple)):
        config = dict(enumerate(config))
    if not isinstance(config, Mapping):
        return
    target = str(config.get("_target_", ""))
    if target.startswith(allowed_targets()) and hasattr(find(target), "fingerprint"):
        if config.get("_partial_") or "artifact://" in json.dumps(config):
            return  # what a stage leaves for another is known by its key
        try:
            yield path, build(config).fingerprint()
        except ConfigError as mistake:
            raise ConfigError(f"{path}.{mistake.key}", mistake.value, mistake.mend) from mistake
        return
    for key, one in config.items():
        yield from data_digests(one, f"{path}.{key}".lstrip("."))


def outside_code(config: Any) -> Iterator[tuple[str, str]]:
    """``code MODULE`` and the digest of each module or package that a config calls from outside."""
    if isinstance(config, (list, tuple)):
        config = dict(enumerate(config))
    if not isinstance(config, Mapping):
        return
    target = str(config.get("_target_", ""))
    if target.startswith(allowed_targets()) and not target.startswith(ALLOWED_TARGETS):
        top = target.partition(".")[0]
        find(target)
        module = sys.modules[top]
        folders = [Path(folder) for folder in getattr(module, "__path__", ())]
        found = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
        found = found or [
            Path(file) for file in [getattr(module, "__file__", None)] if file
        ]  # none: built in
        yield f"code {top}", files.digest([files.sha256_file(file) for file in found])
    for one in config.values():
        yield from outside_code(one)


def is_trial(invocation: Invocation) -> bool:
    """Whether this is one run of a sweep, also when it alone is resumed."""
    return invocation.multirun or bool(invocation.choices.get("sweeps"))


def agreed(work: Callable[[], T]) -> T:
    """What the first process finds on the disk, or its complaint, in every process.

    Looking there one by one, they would see what the first one has already changed.
    """
    found: tuple[T | None, ConfigError | None] | None = None
    if runtime.is_main():
        try:
            found = work(), None
        except ConfigError as mistake:
            found = None, mistake
    told = runtime.broadcast(found)
    assert isinstance(told, tuple)
    if told[1] is not None:
        raise told[1]
    return cast(T, told[0])


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Config paths whose values differ, less those that cannot matter: (path, saved, now)."""
    before, after = _flat(saved), _flat(now)
    return [
        (key, before.get(key, "absent"), after.get(key, "absent"))
        for key in sorted({*before, *after})
        if before.get(key, "absent") != after.get(key, "absent")
        and key.partition(".")[0] not in directory.IMMATERIAL | {"config_version", "allow_targets"}
    ]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {
            k: v for key, one in value.items() for k, v in _flat(one, f"{path}.{key}".lstrip(".")).items()
        }
    if isinstance(value, (list, tuple)) and value:
        return {k: v for i, one in enumerate(value) for k, v in _flat(one, f"{path}.{i}").items()}
    return {path: value}
