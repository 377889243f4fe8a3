"""task=lifecycle: every stage of a model's life, each kept under a key of what it depends on."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llm.config import build
from llm.runs import artifacts as store_module
from llm.runs.artifacts import ArtifactStore
from llm.runs.run import Run
from llm.types import ConfigError

REFERENCE = re.compile(r"artifact://([\w-]+)")

IMMATERIAL = ("checkpoint", "callbacks", "resume", "published")
"""Keys of a stage that cannot change what it leaves: when it is saved, who watches it."""


def lifecycle(
    *,
    run: Run,
    stages: Mapping[str, Any],
    model: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    precision: Mapping[str, Any],
    parallelism: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    artifacts: str | None = "artifacts",
    resume: str | None = None,
) -> float | None:
    """Runs the stages in order; one whose key is in the artifact store is not computed again.

    A stage's key is a hash of its name, its task's `VERSION`, its config less `IMMATERIAL`, the seed, the
    fingerprints of the data it reads, and the keys of the stages it refers to by ``artifact://STAGE``.

    Args:
        run: The record of the whole.
        stages: One task config a stage, by name, in order.
        model: Shared by the stages, which point at it; so are the four below.
        tokenizer: See `model`.
        precision: See `model`.
        parallelism: See `model`.
        checkpoint: See `model`.
        artifacts: The folder of the artifact store; one of this run's own, empty at first, when None.
        resume: A run to go on from; a stage that was cut off continues from its last checkpoint.

    Returns:
        The last stage's objective.
    """
    store = ArtifactStore(Path(artifacts) if artifacts else run.directory / "artifacts")
    keys: dict[str, str] = {}
    places: dict[str, Path] = {}
    record: dict[str, dict[str, Any]] = {}
    objective: float | None = None
    for name, config in stages.items():
        started = time.perf_counter()
        stage = _Stage(name, config, run.seed, keys, places)
        keys[name] = stage.key
        place, cached = _obtain(stage, store, run)
        places[name] = place
        left = json.loads((place / "stage.json").read_text(encoding="utf-8"))
        objective = left["objective"]
        seconds = left["seconds"] if cached else time.perf_counter() - started
        record[name] = {"key": stage.key, "directory": str(place), "cached": cached, "seconds": seconds}
        run.fingerprints.update(stage.fingerprints)
        run.summary[name] = left["summary"]
    run.summary["stages"] = record
    _keep_model(run, places)
    _conclude(run, places, record)
    return objective


class _Stage:
    """One task config of the lifecycle: what it depends on, and how to run it."""

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        seed: int,
        keys: Mapping[str, str],
        places: Mapping[str, Path],
    ) -> None:
        self.name = name
        self.config = config
        unknown = [ref for ref in self.references if ref not in keys]
        if unknown:
            mend = f"no stage of that name before it; there are: {', '.join(keys) or 'none'}"
            raise ConfigError(f"stages.{name}", f"artifact://{unknown[0]}", mend)
        located = _replace(config, {ref: str(places[ref]) for ref in self.references})
        self.task: functools.partial[float | None] = build({**located, "_partial_": True})
        self.fingerprints = {
            f"{name}.{path}": component.fingerprint()
            for path, component in _fingerprinted(self.task.keywords)
        }
        module = sys.modules[self.task.func.__module__]
        material = {key: value for key, value in config.items() if key not in IMMATERIAL}
        self.key = store_module.key(
            name,
            module.VERSION,
            {**material, "seed": seed},
            {ref: keys[ref] for ref in self.references},
            self.fingerprints,
        )

    @functools.cached_property
    def references(self) -> list[str]:
        """The stages this one reads from."""
        return sorted(set(REFERENCE.findall(json.dumps(self.config))))

    def run(self, run: Run) -> None:
        """Runs the task into `run.directory` and leaves what the lifecycle needs of it in `stage.json`."""
        started = time.perf_counter()
        arguments: dict[str, Any] = {}
        if (
            "resume" in inspect.signature(self.task.func).parameters
            and (run.directory / "checkpoints").is_dir()
        ):
            arguments["resume"] = str(run.directory)  # an earlier run of this very stage was cut off
        objective = self.task(run=run, **arguments)
        facts = {"objective": objective, "summary": run.summary, "seconds": time.perf_counter() - started}
        (run.directory / "stage.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")


def _obtain(stage: _Stage, store: ArtifactStore, run: Run) -> tuple[Path, bool]:
    """The stage's artifact, and whether it was there already."""
    found = store.find(stage.name, stage.key)
    if found:
        run.say(f"{stage.name}: found in {found}")
        run.replay(stage.name, found)
        return found, True
    run.say(f"{stage.name}:")
    with store.building(stage.name, stage.key) as place:
        stage.run(run.at_stage(stage.name, place, config=stage.config))
    return store.publish(stage.name, stage.key, dict(stage.config)), False


def _replace(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replace(one, places) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace(one, places) for one in value]
    return REFERENCE.sub(lambda m: places[m[1]], value) if isinstance(value, str) else value


def _fingerprinted(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every component among the arguments of a stage that reads data from outside."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _fingerprinted(one, f"{path}.{key}".lstrip("."))
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from _fingerprinted(one, f"{path}.{index}")
    elif callable(getattr(value, "fingerprint", None)):
        yield path, value


def _keep_model(run: Run, places: Mapping[str, Path]) -> None:
    """Links the last trained model into the run, so that `checkpoint=RUN_DIR` means it."""
    trained = [place for place in places.values() if (place / "checkpoints" / "last").exists()]
    if not trained:
        return
    target = run.directory / "checkpoints"
    shutil.rmtree(target, ignore_errors=True)

    def link(source: str, destination: str) -> None:
        try:
            os.link(source, destination)
        except OSError:  # another file system
            shutil.copy2(source, destination)

    shutil.copytree(trained[-1] / "checkpoints", target, symlinks=True, copy_function=link)


def _conclude(run: Run, places: Mapping[str, Path], record: Mapping[str, Mapping[str, Any]]) -> None:
    raise NotImplementedError
