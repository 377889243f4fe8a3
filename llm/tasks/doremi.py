"""task=doremi: weights of domains that two small models find out (Xie et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from llm import files, runtime
from llm.checkpoints.recipe import recipe_of
from llm.data.mixture import MixedData, MixedSequences
from llm.models.accounting import count_parameters
from llm.reports import domain_weights
from llm.runs.run import Run
from llm.training.group_dro import Clip, GroupDRO
from llm.training.losses import NextToken
from llm.training.trainer import Trainer
from llm.types import Algorithm, ConfigError, Splits, TrainingData

VERSION = 1


def doremi(
    *,
    run: Run,
    data: TrainingData,
    model: Callable[..., nn.Module],
    optimizer: Callable[..., torch.optim.Optimizer],
    schedule: Callable[[int, int], float],
    trainer: Trainer,
    precision: Any,
    parallelism: Any,
    checkpointing: Any,
    step_size: Annotated[float, Field(gt=0)] = 1.0,
    smoothing: Annotated[float, Field(ge=0, le=1)] = 1e-3,
    clip: Clip = "token",
) -> None:
    """Trains a reference and a proxy model, and writes the weights that the proxy found.

    The reference is trained on the data's own weights. The proxy is trained on all domains in equal parts,
    and its loss is weighted towards the domains where it is still behind the reference
    (`llm.training.group_dro`). Domains that nobody learns, and those that are learned at once, lose weight.

    The run's directory gets ``weights.json`` (`weights`, the average over the steps; `bytes_per_token` and
    `sequences` of each domain; `baseline`, `last` and `settings`), ``weights.png``, and a folder for each of
    the two models. ``data=mixture data.weights=FILE`` and ``curation/mixture=doremi`` read the file.

    Args:
        run: Where the outputs go.
        data: A mixture (`llm.data.mixture.MixedData`) of the domains, with the baseline's weights. For the
            paper's iterated DoReMi give an earlier weights file as `data.weights`.
        model: Makes both models, given the vocabulary size and the longest sequence.
        optimizer: Makes the optimizer from named parameters.
        schedule: Learning-rate multiplier from (step, total steps).
        trainer: The training loop of both.
        precision: The number format of the forward pass.
        parallelism: How the work is split; one process.
        checkpointing: When checkpoints are written and which are kept.
        step_size: The paper's eta, of the weights' updates.
        smoothing: The paper's c, how much of the uniform distribution the weights always hold.
        clip: `token` as in the paper; `domain` lets what neither model can learn cancel out first.

    Raises:
        ConfigError: there are not two domains, or a step is not one micro-batch of one process.
    """
    if not isinstance(data, MixedData):
        raise ConfigError("data", type(data).__name__, "is of one domain: choose data=mixture")
    _require_whole_batches(trainer, data)
    fit = _Fitting(run, model, {"optimizer": optimizer, "schedule": schedule, "parallelism": parallelism,
                                "precision": precision, "checkpoint": checkpointing}, trainer)  # fmt: skip
    splits = data.load(_no_tokenizer, run.directory / "data" / "reference")
    train = splits.train
    assert isinstance(train, MixedSequences)
    reference = fit("reference", NextToken(), splits)
    names = list(train.domains)
    algorithm = GroupDRO(names, reference, step_size, smoothing, clip)
    even = data.reweighted(dict.fromkeys(names, 1.0))
    history = _History(names)
    fit("proxy", algorithm, even.load(_no_tokenizer, run.directory / "data" / "proxy"), history)
    settings = {"steps": trainer.max_steps, "batch_size": trainer.batch_size, "seq_len": data.seq_len,
                "step_size": step_size, "smoothing": smoothing, "clip": clip, "seed": run.seed,
                "n_params": count_parameters(reference)}  # fmt: skip
    _conclude(run, train, algorithm, history, settings)


def _require_whole_batches(trainer: Trainer, data: MixedData) -> None:
    n_domains = len(data.paths)
    if n_domains < 2:
        raise ConfigError("data.paths", ", ".join(data.paths), "weights need two domains or more")
    if trainer.grad_accum_steps > 1:
        mend = "the weights follow from the whole batch: must be 1"
        raise ConfigError("trainer.grad_accum_steps", trainer.grad_accum_steps, mend)
    if runtime.world_size() > 1:
        mend = "the weights follow from the whole batch: start one process"
        raise ConfigError("parallelism", f"{runtime.world_size()} processes", mend)
    if trainer.batch_size < n_domains:
        mend = f"fewer sequences than domains; at least {n_domains}, better a multiple of it"
        raise ConfigError("trainer.batch_size", trainer.batch_size, mend)


class _Fitting:
    """Trains a model of the same recipe and the same initial weights each time."""

    def __init__(
        self, run: Run, make_model: Callable[..., nn.Module], parts: Mapping[str, Any], trainer: Trainer
    ) -> None:
        self._run, self._make_model, self._parts, self._trainer = run, make_model, parts, trainer

    def __call__(self, stage: str, algorithm: Algorithm, splits: Splits, *callbacks: Any) -> nn.Module:
        run = self._run.at_stage(stage, self._run.directory / stage)
        run.rewind(-1)  # an earlier start of this run may have left metrics
        assert isinstance(splits.train, MixedSequences)
        sizes = {"vocab_size": splits.tokenizer.vocab_size, "max_seq_len": splits.train.seq_len}
        model = self._make_model(**sizes)
        model.init_weights(torch.Generator().manual_seed(run.seed))  # type: ignore[operator]
        self._run.say(f"{stage}: {count_parameters(model):,} parameters, {len(splits.train):,} sequences")
        self._trainer.fit(
            run=run,
            algorithm=algorithm,
            model=model,
            splits=splits,
            model_config=recipe_of(self._make_model),
            callbacks=callbacks,
            **self._parts,
        )
        run.summary["n_params"] = count_parameters(model)
        run.close()
        return model


class _History:
    """The weights of every step, for the plot."""

    def __init__(self, names: list[str]) -> None:
        self.weights: dict[str, list[float]] = {name: [] for name in names}

    def on_step(self, state: Any, metrics: Mapping[str, float]) -> None:  # noqa: ARG002  (`Callback`'s form)
        for name, weights in self.weights.items():
            weights.append(metrics[f"weight/{name}"])


def _no_tokenizer(_: object) -> Any:
    raise AssertionError("packed data have a tokenizer")


def _conclude(
    run: Run, train: MixedSequences, algorithm: GroupDRO, history: _History, settings: Mapping[str, Any]
) -> None:
    weights, names = algorithm.average, algorithm.names
    given = train.phases[-1].weights
    baseline = {name: given[name] / sum(given.values()) for name in names}
    widths = {name: dataset.bytes_per_target for name, dataset in train.domains.items()}
    content = {
        "weights": weights,
        "bytes_per_token": None if None in widths.values() else widths,
        "sequences": train.sizes,
        "baseline": baseline,
        "last": dict(zip(names, algorithm.weights.tolist(), strict=True)),
        "settings": settings,
    }
    files.write_json(run.directory / "weights.json", content)
    files.write_bytes(run.directory / "weights.png", domain_weights.draw(history.weights, weights, baseline))
    rows = [[name, baseline[name], weights[name]] for name in sorted(names, key=lambda one: -weights[one])]
    run.log_table("weights", ["domain", "baseline", "weight"], rows)
    run.summary |= {f"weight/{name}": weight for name, weight in weights.items()}
    for name, before, after in rows:
        run.say(f"{name}: {before:.1%} in the baseline, {after:.1%} learned")
    run.say(f"the weights: {run.directory / 'weights.json'}")
