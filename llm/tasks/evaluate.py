"""task=evaluate: examine a trained model, and say how surely it differs from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from llm import files, runtime
from llm.checkpoints.pretrained import Loaded, Pretrained, load, locate, of_one_model
from llm.evaluation import origin
from llm.evaluation.base import AnyExam, DirectExam, Paired, Result
from llm.evaluation.perplexity import ValidationLoss
from llm.evaluation.runner import CONFIDENCE, difference, sample, sit, size
from llm.evaluation.scorer import Scorer
from llm.runs.run import Run
from llm.statistics import Interval
from llm.types import ConfigError, TrainingData

VERSION = 1

N_SAMPLES = 6
"""Prompts continued for people to read."""


@dataclass(frozen=True)
class _Examined:
    """One model after its exams."""

    checkpoint: Path
    step: int
    results: dict[str, Result]
    samples: list[tuple[str, str]]


@dataclass(frozen=True)
class _Difference:
    """The second model's mean score less the first one's, on the same examples."""

    first: str
    second: str
    score: str
    interval: Interval


@of_one_model
def evaluate(
    *,
    run: Run,
    checkpoint: str | None = None,
    model: Pretrained | None = None,
    evaluation: Mapping[str, AnyExam] | None = None,
    data: TrainingData | None = None,
    compare: Mapping[str, str] | None = None,
    sample_tokens: Annotated[int, Field(ge=0)] = 48,
) -> float:
    """Runs every exam on a trained model and writes ``evaluation.json``.

    ::

        models        by name: checkpoint, step, exams (by name: main, metrics)
        differences   by exam, a list: first, second, score compared, estimate, low, high, confidence
        samples       prompt and text, of the model itself

    Args:
        run: Where records go.
        checkpoint: The model: a run's folder or one of its checkpoints, a Hugging Face directory, or a GGUF
            file.
        model: A trained model in place of `checkpoint`, as ``model=pretrained model.hub=org/name``.
        evaluation: Exams by name. When empty: those of the checkpoint's own run if that was a lifecycle,
            else the validation loss on `data`.
        data: What exams that read tokens are measured on; what the model was trained on when null.
        compare: Further models by name, the first one the baseline: each sits the exams that compare
            example by example, and each difference to the first is given with its interval.
        sample_tokens: Length of the sample generations, greedy; 0 for none.

    Returns:
        The main metric of the first exam.
    """
    own = Pretrained.chosen(checkpoint, model)
    where = own.place
    exams = dict(evaluation or {}) or (
        {"validation_loss": ValidationLoss(data)} if data else origin.exams_of(where)
    )
    for exam in exams.values():
        if isinstance(exam, ValidationLoss) and exam.data is None:
            exam.data = data or origin.data_of(where)
    paired = {name: exam for name, exam in exams.items() if isinstance(exam, Paired)}
    if compare and not paired:
        mend = "none of these exams compares models example by example; add evaluation=[preference_margin]"
        raise ConfigError("compare", ", ".join(compare), mend)
    others = {name: locate(path, key=f"compare.{name}") for name, path in (compare or {}).items()}
    own_name = next((name for name, path in others.items() if path == where), "model")

    models = {own_name: _examine(run, own.load(run), "", exams, sample_tokens)}
    for name, path in others.items():
        if name not in models:
            models[name] = _examine(run, load(path, key=f"compare.{name}", run=run), name, paired, 0)
    differences = _differences(paired, {name: models[name] for name in others})
    _record(run, own_name, models, differences)
    first = next(iter(exams))
    result = models[own_name].results[first]
    return result.metrics[result.main]


def _examine(
    run: Run, loaded: Loaded, name: str, exams: Mapping[str, AnyExam], sample_tokens: int
) -> _Examined:
    model, tokenizer, info = loaded
    scorer = Scorer(model.to(runtime.device()), tokenizer, cache=run.directory / "data")
    results = {}
    for exam_name, exam in exams.items():
        try:
            unit = "sequences" if isinstance(exam, DirectExam) else "requests"
            with run.progress(f"{name} {exam_name}".strip(), size(exam, scorer), unit=unit) as progress:
                results[exam_name] = sit(exam, scorer, progress.advance)
        except ConfigError as error:
            raise _placed(error, exam_name) from error
    prompts = [prompt for result in results.values() for prompt in result.prompts]
    chosen = list(dict.fromkeys(prompts))[:N_SAMPLES] if sample_tokens else []
    return _Examined(Path(info["path"]), int(info["step"]), results, sample(scorer, chosen, sample_tokens))


def _placed(error: ConfigError, exam: str) -> ConfigError:
    """An exam names its own parameter; tell which exam it is of."""
    local = error.key.split(".")[0] in ("path", "data", "baseline", "baseline_key", "style")
    return ConfigError(f"evaluation.{exam}.{error.key}" if local else error.key, error.value, error.mend)


def _differences(
    exams: Mapping[str, Paired], models: Mapping[str, _Examined]
) -> dict[str, list[_Difference]]:
    """By exam, each model against the first one."""
    first, *rest = models or [""]
    return {
        name: [
            _Difference(
                first,
                second,
                exam.paired,
                difference(exam, models[first].results[name], models[second].results[name]),
            )
            for second in rest
        ]
        for name, exam in exams.items()
        if rest
    }


def _record(
    run: Run,
    own: str,
    models: Mapping[str, _Examined],
    differences: Mapping[str, list[_Difference]],
) -> None:
    examined = models[own]
    metrics = {
        f"{name}/{metric}": value
        for name, result in examined.results.items()
        for metric, value in result.metrics.items()
    }
    for name, result in examined.results.items():
        columns = list(result.rows[0]) if result.rows else []
        run.log_table(name, columns, [[row[column] for column in columns] for row in result.rows])
        run.say(f"{name}: {_in_words(result)}")
    for exam, found in differences.items():
        for one in found:
            metrics |= {
                f"{exam}/{one.second}_minus_{one.first}{suffix}": value
                for suffix, value in zip(("", "_low", "_high"), one.interval, strict=True)
            }
            run.say(f"{exam}: {_difference_in_words(one)}")
    if examined.samples:
        run.log_table("samples", ["prompt", "text"], examined.samples)
    run.log(metrics, step=examined.step)
    run.summary.update(metrics)
    if run.is_main:
        record = _as_json(models, differences, examined.samples)
        files.write_json(run.directory / "evaluation.json", record)


def _as_json(
    models: Mapping[str, _Examined],
    differences: Mapping[str, list[_Difference]],
    samples: list[tuple[str, str]],
) -> dict[str, Any]:
    return {
        "models": {
            name: {
                "checkpoint": str(examined.checkpoint),
                "step": examined.step,
                "exams": {
                    exam: {"main": result.main, "metrics": result.metrics}
                    for exam, result in examined.results.items()
                },
            }
            for name, examined in models.items()
        },
        "differences": {
            exam: [
                {
                    "first": one.first,
                    "second": one.second,
                    "score": one.score,
                    **one.interval._asdict(),
                    "confidence": CONFIDENCE,
                }
                for one in found
            ]
            for exam, found in differences.items()
        },
        "samples": [{"prompt": prompt, "text": text} for prompt, text in samples],
    }


def _in_words(result: Result) -> str:
    metrics, main = result.metrics, result.main
    error = metrics.get(f"{main}_standard_error")
    names = ("chance", "baseline_accuracy", "perplexity", "bits_per_byte") + ("accuracy",) * (
        main == "margin"
    )
    beside = [f"{name.replace('_', ' ')} {metrics[name]:.4g}" for name in names if name in metrics]
    text = f"{main.replace('_', ' ')} {metrics[main]:.4g}" + (f" ± {error:.2g}" if error is not None else "")
    return text + (f" ({', '.join(beside)})" if beside else "")


def _difference_in_words(one: _Difference) -> str:
    estimate, low, high = one.interval
    sure = "above" if low > 0 else "below" if high < 0 else "not clearly different from"
    return (
        f"{one.second} is {sure} {one.first}: {estimate:+.4g}, "
        f"{CONFIDENCE:.0%} interval {low:+.4g} to {high:+.4g} (paired bootstrap)"
    )
