"""The facts of a lifecycle's report, out of what its stages left behind."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm import files
from llm.reports import words
from llm.reports.facts import Exam, Facts, Preferences, Removal, Score, Stage

EXAM, PREFERENCES = "multiple_choice", "preference_margin"


def facts(stages: Mapping[str, Mapping[str, Any]], places: Mapping[str, Path], run_directory: Path) -> Facts:
    """What the report says of a lifecycle; a kind of stage that was left out is left out there too.

    Args:
        stages: By name, what the lifecycle recorded of each: seconds, whether reused.
        places: By name, the folder of its artifact.
        run_directory: The run's, for the commands to go on with.
    """
    found: Facts = {"stages": [], "data": {}, "commands": _commands(run_directory, places)}
    about: dict[str, object] = {}
    for name, place in places.items():
        summary: dict[str, Any] = files.read_json(place / "stage.json")["summary"]
        found["stages"].append(_stage(name, stages[name], summary))
        about |= {key: summary[key] for key in ("n_params", "vocab_size") if key in summary}
        if (place / "ledger.parquet").is_file():
            curated = files.read_json(place / "summary.json")
            found["funnel"] = _funnel(curated)
            about |= _about_data(curated)
        if (place / "evaluation.json").is_file():
            _examined(found, files.read_json(place / "evaluation.json"))
    names = {"n_params": "parameters", "vocab_size": "vocabulary"}
    found["data"] = {names.get(key, key): value for key, value in about.items()}
    return found


def _stage(name: str, record: Mapping[str, Any], summary: Mapping[str, Any]) -> Stage:
    stage: Stage = {"name": name, "seconds": float(record["seconds"]), "reused": bool(record["reused"])}
    if "val_loss" in summary:
        stage["before"], stage["after"] = summary.get("val_loss_before"), summary["val_loss"]
        stage["note"] = f"{words.short(summary.get('tokens', 0))} tokens in {summary.get('steps', 0):,} steps"
    return stage


def _funnel(curated: Mapping[str, Any]) -> list[Removal]:
    steps: list[Removal] = [{"step": "read", "documents": int(curated["documents"]["read"])}]
    left = steps[0]["documents"]
    for row in curated.get("funnel", []):
        left -= int(row["documents_in"]) - int(row["documents_out"])
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in row.get("reasons", {}).items())
        steps.append({"step": str(row["step"]), "documents": left, "reason": reasons})
    return steps


def _about_data(curated: Mapping[str, Any]) -> dict[str, object]:
    documents, size = curated["documents"], curated["bytes"]
    about: dict[str, object] = {
        "training documents": documents["train"],
        "training bytes": size["train"],
        "held-out documents": documents["validation"],
    }
    for key, name in (("conversations", "conversations"), ("preferences", "preference pairs")):
        if key in curated:
            about[f"{name}, training"] = curated[key]["train"]
            about[f"{name}, held out"] = curated[key]["validation"]
    if "baseline" in curated:
        about["bag of words on the pairs"] = words.percent(curated["baseline"]["pairs_accuracy"])
    return about


def _examined(found: Facts, record: Mapping[str, Any]) -> None:
    """The exam, the preferences and the samples of an `evaluation.json`."""
    models: dict[str, Mapping[str, Any]] = {  # the model itself stands first there, and last in a report
        name.upper() if len(name) == 3 else name: record["models"][name]["exams"]
        for name in reversed(record["models"])
    }
    exams = {name: one[EXAM] for name, one in models.items() if EXAM in one}
    if exams:
        exam: Exam = {"models": [_score(name, one) for name, one in exams.items()]}
        last = list(exams.values())[-1]["metrics"]
        exam |= {"n_questions": int(last["n_examples"]), "chance": last["chance"]}
        if "baseline_accuracy" in last:
            exam |= {"baseline": last["baseline_accuracy"], "baseline_name": "bag of words"}
        found["exam"] = exam
    margins = {name: one[PREFERENCES] for name, one in models.items() if PREFERENCES in one}
    if margins:
        preferences: Preferences = {"models": [_score(name, one) for name, one in margins.items()]}
        preferences["n_pairs"] = int(list(margins.values())[-1]["metrics"]["n_examples"])
        for difference in record.get("differences", {}).get(PREFERENCES, [])[-1:]:
            preferences["difference"] = {
                "value": difference["estimate"], "low": difference["low"], "high": difference["high"]
            }  # fmt: skip
        found["preferences"] = preferences
    found["samples"] = [{"prompt": one["prompt"], "completion": one["text"]} for one in record["samples"]]


def _score(name: str, exam: Mapping[str, Any]) -> Score:
    main, metrics = exam["main"], exam["metrics"]
    score: Score = {"name": name, "value": metrics[main]}
    if f"{main}_low" in metrics:
        score |= {"low": metrics[f"{main}_low"], "high": metrics[f"{main}_high"]}
    return score


def _commands(run_directory: Path, places: Mapping[str, Path]) -> dict[str, str]:
    here = shlex.quote(str(run_directory))
    commands = {"reproduce it, bit by bit": f"python main.py reproduce={here}"}
    if any((place / "checkpoints").is_dir() for place in places.values()):
        commands = {
            "chat in the terminal": f"python main.py task=generate checkpoint={here}",
            "chat in the browser (after pip install -e '.[serve]')": (
                f"python main.py task=serve checkpoint={here}"
            ),
            "sweep over depth, heads and width": "python main.py sweeps=depth_heads_width",
        } | commands
    return commands
