"""The run a checkpoint came from: what it was trained on, and what it would be examined by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm.config import build
from llm.evaluation.base import AnyExam
from llm.evaluation.perplexity import ValidationLoss
from llm.runs import directory
from llm.types import ConfigError, TrainingData

UNKNOWN = "what to measure on is unknown: choose data=NAME or evaluation=[NAME]"


def exams_of(checkpoint: Path) -> dict[str, AnyExam]:
    """A lifecycle's own exams; of any other run the validation loss on its data.

    Args:
        checkpoint: one step's directory inside a run's ``checkpoints``.

    Raises:
        ConfigError: ``checkpoint``: it lies in no run, or the run names neither exams nor data.
    """
    stages = _config(checkpoint).get("stages") or {}
    exams = (stages.get("evaluate") or {}).get("evaluation") or {}
    if exams:
        return {name: build(node) for name, node in exams.items()}
    return {"validation_loss": ValidationLoss(data_of(checkpoint))}


def data_of(checkpoint: Path) -> TrainingData:
    """What the model was trained on; in a lifecycle, what it was pretrained on.

    Raises:
        ConfigError: as `exams_of`.
    """
    config = _config(checkpoint)
    stages = (config.get("stages") or {"": config}).values()
    found = [stage["data"] for stage in stages if "trainer" in stage and stage.get("data")]
    if not found:
        raise ConfigError("checkpoint", checkpoint, f"its run trained on no data it names, so {UNKNOWN}")
    data: TrainingData = build(found[0])
    return data


def _config(checkpoint: Path) -> dict[str, Any]:
    """The config of the run, a lifecycle's references to its stages replaced by their folders."""
    folder = checkpoint.parent.parent
    if not (folder / "config.yaml").is_file():
        raise ConfigError("checkpoint", checkpoint, f"lies in no run's folder, so {UNKNOWN}")
    record = directory.read(folder, key="checkpoint")
    stages = record.result.get("stages") or {}
    places = {name: stage["directory"] for name, stage in stages.items() if "directory" in stage}
    config: dict[str, Any] = _located(record.config, places)
    return config


def _located(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _located(one, places) for key, one in value.items()}
    if isinstance(value, list):
        return [_located(one, places) for one in value]
    if isinstance(value, str):
        return re.sub(r"artifact://([\w-]+)", lambda m: places.get(m[1], m[0]), value)
    return value
