"""task=plan: what a training run would take, said before anything is allocated, read or rented."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, get_type_hints

from pydantic import Field
from rich.console import Console

from llm import files
from llm.config import build, find
from llm.planning.memory import KINDS, Kind
from llm.planning.plan import Plan, Training, make_plan, on_meta
from llm.planning.table import as_json, tables
from llm.reports.memory import drawn
from llm.runs.run import Run
from llm.training.losses import NextToken
from llm.types import ConfigError

VERSION = 1

Count = Annotated[int, Field(gt=0)]

CHARACTERS = 128
"""What the vocabulary of a tokenizer is taken for that learns its characters from the text."""


def plan(
    *,
    run: Run,
    data: Mapping[str, Any],
    model: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    schedule: Mapping[str, Any],  # noqa: ARG001  (a pretraining command line is a plan's)
    trainer: Mapping[str, Any],
    precision: Mapping[str, Any],
    parallelism: Mapping[str, Any],
    checkpointing: Mapping[str, Any],  # noqa: ARG001
    device: Mapping[str, Any],
    tokenizer: Mapping[str, Any] | None = None,
    n_devices: Count = 1,
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.4,
    vocab_size: Count | None = None,
    seq_len: Count | None = None,
    callbacks: Mapping[str, Any] | None = None,  # noqa: ARG001
    published: Mapping[str, Any] | None = None,  # noqa: ARG001
    resume: str | None = None,  # noqa: ARG001
) -> float:
    """Prices the pretraining run of the same config.

    Args:
        run: Takes the tables, ``plan.json`` and a picture of the memory.
        data: Asked for its sequence length only.
        model: Built on the meta device.
        optimizer: Its state is counted.
        schedule: Costs nothing.
        trainer: How long, how much at once.
        precision: The number format of the forward pass.
        parallelism: How the work is split.
        checkpointing: Costs nothing here.
        device: What it would run on.
        tokenizer: Asked for the size of its vocabulary.
        n_devices: How many share a step.
        utilisation: Share of the device's peak arithmetic that training reaches.
        vocab_size: Instead of what the model or the tokenizer says.
        seq_len: Instead of what the data says.
        callbacks: Cost nothing.
        published: Not asked.
        resume: Not asked.

    Returns:
        Seconds that training would take.

    Raises:
        ConfigError: a number is missing, or the numbers do not fit together.
    """
    length = seq_len or data.get("seq_len")
    if not length:
        raise ConfigError("seq_len", None, "this data does not say how long its sequences are: seq_len=1024")
    size, said = _vocabulary(vocab_size, model, tokenizer)
    if not vocab_size and data.get("n_sentinels"):
        size, said = size + int(data["n_sentinels"]), f"{said}, and the data's sentinels"
    run.say(f"vocab_size={size} ({said}), seq_len={length}")
    loop = build(trainer)
    training = Training(
        seq_len=int(length),
        batch_size=loop.batch_size,
        grad_accum_steps=loop.grad_accum_steps,
        max_steps=loop.max_steps,
        n_devices=n_devices,
        kind=_kind(parallelism, n_devices),
        clip_norm=loop.clip_norm,
    )
    if not model.get("_partial_"):
        raise ConfigError(
            "model", model.get("_target_"), "is loaded, not built: plan one that a config builds"
        )
    whole = on_meta(build(model), vocab_size=size, max_seq_len=int(length))
    made = make_plan(
        whole, build(optimizer), NextToken(), training, build(device), build(precision), utilisation
    )
    _tell(run, made, size)
    return made.seconds


def _vocabulary(
    given: int | None, model: Mapping[str, Any], tokenizer: Mapping[str, Any] | None
) -> tuple[int, str]:
    """How many ids there are, and who says so."""
    if given:
        return given, "as you say"
    if model.get("vocab_size"):
        return int(model["vocab_size"]), "the model's as released; vocab_size=N for another"
    if tokenizer is None:
        raise ConfigError("vocab_size", None, "nothing says how many tokens there are: vocab_size=32000")
    if tokenizer.get("vocab_size"):
        return int(tokenizer["vocab_size"]), "the tokenizer's"
    if tokenizer.get("directory"):
        return int(build(tokenizer)(()).vocab_size), "the saved tokenizer's"
    made = get_type_hints(inspect.unwrap(find(tokenizer["_target_"]))).get("return")
    size = getattr(made, "vocab_size", None)
    if isinstance(size, int):
        return size, "the tokenizer's"
    return CHARACTERS, "assumed: this tokenizer learns it from the text; vocab_size=N if you know it"


def _kind(parallelism: Mapping[str, Any], n_devices: int) -> Kind:
    """By the module of the component; its own number of processes must be the plan's."""
    kind = str(parallelism["_target_"]).split(".")[-2]
    if kind not in KINDS:
        raise ConfigError("parallelism", kind, f"cannot be planned yet; these can: {', '.join(KINDS)}")
    for key in ("replicas", "shards"):
        if parallelism.get(key) not in (None, n_devices):
            raise ConfigError(key, parallelism[key], f"the plan is for n_devices={n_devices}")
    return kind


def _tell(run: Run, made: Plan, vocab_size: int) -> None:
    facts = {"vocab_size": vocab_size, **as_json(made)}
    if run.is_main:
        files.write_json(run.directory / "plan.json", facts)
        picture = drawn(made.memory.parts(), made.capacity, made.device.label)
        files.write_bytes(run.directory / "memory.png", picture)
        console = Console()
        for table in tables(made):
            console.print(table)
    for name in ("parameters", "memory"):
        rows = [
            [part, *values.values()] for part, values in facts[name].items() if isinstance(values, Mapping)
        ]
        if rows:
            columns = ["part", *next(v for v in facts[name].values() if isinstance(v, Mapping))]
            run.log_table(name, columns, rows)
    run.summary.update(facts["summary"], n_params=made.n_params)
