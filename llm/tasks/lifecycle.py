"""task=lifecycle: every stage of a model's life, each kept under a key of what it depends on."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm import files, runtime
from llm.config import build
from llm.reports import gather, page, words
from llm.runs.artifacts import ArtifactStore
from llm.runs.artifacts import key as key_of
from llm.runs.run import Run
from llm.tasks.execute import data_digests
from llm.types import ConfigError

REFERENCE = re.compile(r"artifact://([\w-]+)")

IMMATERIAL = ("checkpointing", "callbacks", "resume", "published")
"""Keys of a stage that cannot change what it leaves: when it is saved, who watches it."""


def lifecycle(
    *,
    run: Run,
    stages: Mapping[str, Any],
    model: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    precision: Mapping[str, Any],
    parallelism: Mapping[str, Any],
    checkpointing: Mapping[str, Any],
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
        checkpointing: See `model`.
        artifacts: The folder of the artifact store; one of this run's own, empty at first, when None.
        resume: A run to go on from; a stage that was cut off continues from its last checkpoint.

    Returns:
        The last stage's objective.
    """
    _check_references(stages)
    store = ArtifactStore(Path(artifacts) if artifacts else run.directory / "artifacts", say=run.say)
    keys: dict[str, str] = {}
    places: dict[str, Path] = {}
    objective: float | None = None
    for name, config in stages.items():
        stage = _Stage(name, config, run.seed, keys, places)
        keys[name] = stage.key
        places[name], reused = _obtain(stage, store, run)
        left = _left_by(places[name])
        objective = objective if left["objective"] is None else left["objective"]
        run.stages[name] = {
            "key": stage.key,
            "directory": str(places[name]),
            "reused": reused,
            "seconds": left["seconds"],
        }
        for what, digest in stage.fingerprints.items():
            run.note_data(f"{name}.{what}", digest)
    if runtime.is_main():
        run.summary.update(_of_the_model([_left_by(place)["summary"] for place in places.values()]))
        _keep_model(run, places)
        _conclude(run, places)
    return objective


def _of_the_model(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the run as a whole: the last trained model, and the tokens of all its training."""
    trained = [summary for summary in summaries if "weights_sha256" in summary]
    if not trained:
        return {}
    facts = {key: trained[-1][key] for key in ("n_params", "weights_sha256") if key in trained[-1]}
    return {**facts, "tokens": sum(summary["tokens"] for summary in trained)}


def _check_references(stages: Mapping[str, Any]) -> None:
    """Refuses ``artifact://NAME`` where no stage before has that name, before the first stage is run."""
    found: list[ConfigError] = []
    earlier: list[str] = []
    for name, config in stages.items():
        for path, text in _texts(config, f"stages.{name}"):
            for reference in REFERENCE.findall(text):
                if reference not in earlier:
                    mend = f"no stage of that name before it; there are: {', '.join(earlier) or 'none'}"
                    found.append(ConfigError(path, text, mend))
        earlier.append(name)
    if found:
        raise ExceptionGroup("some stages refer to what is not there", found)


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _texts(one, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from _texts(one, f"{path}.{index}")
    elif isinstance(value, str):
        yield path, value


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
        located = _replace(config, {ref: str(places[ref]) for ref in self.references})
        self.task: functools.partial[float | None] = build({**located, "_partial_": True})
        self.parameters = inspect.signature(self.task.func).parameters
        self.is_distributed = "parallelism" in self.parameters
        place = f"stages.{name}"
        self.fingerprints = {
            path.removeprefix(f"{place}."): digest for path, digest in data_digests(located, place)
        }
        module = sys.modules[self.task.func.__module__]
        self.key = key_of(
            name,
            module.VERSION,
            {**config, "seed": seed},
            {ref: keys[ref] for ref in self.references},
            self.fingerprints,
            ignore=IMMATERIAL,
        )

    @functools.cached_property
    def references(self) -> list[str]:
        """The stages this one reads from."""
        return sorted(set(REFERENCE.findall(json.dumps(self.config))))

    def run(self, run: Run) -> None:
        """Runs the task into `run.directory` and leaves what the lifecycle needs of it in `stage.json`."""
        started = time.perf_counter()
        arguments: dict[str, Any] = {}
        if "resume" in self.parameters and (run.directory / "checkpoints").is_dir():
            arguments["resume"] = str(run.directory)  # an earlier run of this very stage was cut off
        else:
            run.rewind(-1)  # what it may have logged before it was cut off comes again
        objective = self.task(run=run, **arguments)
        facts = {"objective": objective, "summary": run.summary, "seconds": time.perf_counter() - started}
        if runtime.is_main():
            files.write_json(run.directory / "stage.json", facts)


def _obtain(stage: _Stage, store: ArtifactStore, run: Run) -> tuple[Path, bool]:
    """The stage's artifact, and whether it was there already.

    Under torchrun the first process alone looks, builds what needs no partners, and publishes.
    """
    if not stage.is_distributed and not runtime.is_main():
        return _announce(None)
    with contextlib.ExitStack() as held:
        found = held.enter_context(store.building(stage.name, stage.key)) if runtime.is_main() else None
        found = runtime.broadcast(found) if stage.is_distributed else found
        if found is None:
            place = store.open(stage.name, stage.key)
            child = run.at_stage(stage.name, place)
            run.say(f"[{stage.name}]")
            stage.run(child)
            child.close()
            if runtime.is_main():
                manifest = {"config": stage.config, "summary": child.summary}
                return _announce((store.publish(stage.name, stage.key, manifest), False))
            return _announce(None)
        run.say(f"[{stage.name}] is there already: {found}")
        child = run.at_stage(stage.name, found, reused=True)
        child.summary.update(_left_by(found)["summary"])
        return _announce((found, True))


def _announce(result: tuple[Path, bool] | None) -> tuple[Path, bool]:
    """The first process's result, in every process."""
    known = runtime.broadcast(result)
    assert isinstance(known, tuple)
    return known


def _left_by(place: Path) -> dict[str, Any]:
    return dict(json.loads((place / "stage.json").read_text(encoding="utf-8")))


def _replace(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replace(one, places) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace(one, places) for one in value]
    return REFERENCE.sub(lambda m: places[m[1]], value) if isinstance(value, str) else value


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


def _conclude(run: Run, places: Mapping[str, Path]) -> None:
    """The report, a short table, and what to do next."""
    facts = gather.facts(run.stages, places, run.directory)
    files.write_json(run.directory / page.FACTS, facts)
    run.say(words.table(facts))
    run.say(f"the report: {run.directory / 'report.html'}")
    run.say(words.next_steps(facts))
