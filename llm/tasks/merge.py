"""task=merge: one model of several trained ones, as a checkpoint that every other task takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from llm.checkpoints.huggingface import with_sizes
from llm.checkpoints.local import LocalCheckpoints
from llm.checkpoints.manifest import weights_sha256
from llm.checkpoints.merging.base import Merging, require_same_recipe, require_same_tensors
from llm.checkpoints.pretrained import load
from llm.checkpoints.recipe import plain
from llm.files import plain as plain_values
from llm.models.accounting import count_parameters
from llm.models.adapters.merge import merged
from llm.models.weights import persistent
from llm.runs.run import Run
from llm.tokenizers.base import same
from llm.types import ConfigError, Tokenizer

VERSION = 1


@dataclass(frozen=True)
class _Parent:
    """One of the models that are merged, without its adapters."""

    given: str
    model: nn.Module
    weights: dict[str, Tensor]
    recipe: dict[str, Any]
    tokenizer: Tokenizer
    info: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """For the checkpoint's own record."""
        path, step = str(self.info["path"]), int(self.info["step"])
        return {"path": path, "step": step, "weights_sha256": weights_sha256(self.weights)}


def merge(*, run: Run, models: Sequence[str], merging: Merging, base: str | None = None) -> None:
    """Merges trained models of one architecture and one tokenizer into one, tensor by tensor.

    The merged model is the run's checkpoint, of step 0; its ``model.json`` names its parents with the
    digests of their weights. Adapters become part of their models first.

    Args:
        run: Where the merged model and its record go.
        models: Runs' folders, checkpoints, directories in Hugging Face's form or ``hub:org/name``.
        merging: The method.
        base: What they were all fine-tuned from, for methods that add up differences to it.

    Raises:
        ConfigError: ``models`` or ``base``: one is no checkpoint, or differs in architecture or tokenizer
            from the first, or they are too few or too many for the method.
    """
    merging.require(len(models), has_base=base is not None)
    n_loaded = len(models) + (base is not None)
    with run.progress("reading", n_loaded, "models") as bar:
        parents = []
        for path in models:
            parents.append(_load(path, "models"))
            bar.advance(1)
        origin = None
        if base is not None:
            origin = _load(base, "base")
            bar.advance(1)
    first = parents[0]
    for other, key in (
        *((parent, "models") for parent in parents[1:]),
        *([(origin, "base")] if origin else []),
    ):
        _require_alike(first, other, key)
    result: dict[str, Tensor] = {}
    with run.progress("merging", len(first.weights), "tensors") as bar:
        together = merging.merge([p.weights for p in parents], origin.weights if origin else None)
        for name, tensor in together:
            result[name] = tensor
            bar.advance(1)
    if bad := next((name for name, tensor in result.items() if not tensor.isfinite().all()), None):
        raise RuntimeError(f"{bad} is not finite after merging; is it in {first.given}?")
    _save(run, parents, origin, result, merging)


def _load(path: str, key: str) -> _Parent:
    loaded, tokenizer, info = load(path, key=key)
    model = merged(cast(nn.Module, loaded))
    weights = {name: tensor.detach() for name, tensor in persistent(model).items()}
    return _Parent(path, model, weights, plain(info["config"]), tokenizer, info)


def _require_alike(first: _Parent, other: _Parent, key: str) -> None:
    """The same function of the same tensors, on the same ids."""
    require_same_tensors(first.weights, other.weights, key=key, value=other.given)
    require_same_recipe(_described(first), _described(other), key=key, value=other.given)
    if not same(first.tokenizer, other.tokenizer):
        mend = f"its tokenizer is not that of {first.given}: an id stands for other text in each of them"
        raise ConfigError(key, other.given, mend)


def _described(parent: _Parent) -> dict[str, Any]:
    known = {"d_model", "n_heads"} <= set(parent.recipe)
    recipe = with_sizes(parent.recipe, parent.weights) if known else parent.recipe
    return {**recipe, "max_seq_len": cast(Any, parent.model).max_seq_len}


def _save(
    run: Run, parents: Sequence[_Parent], origin: _Parent | None, result: dict[str, Tensor], merging: Merging
) -> None:
    """The checkpoint, and what the run says of it."""
    first: Any = parents[0].model
    lineage: dict[str, Any] = {
        "method": type(merging).__name__,
        "settings": plain_values(vars(merging)),
        "parents": [parent.facts() for parent in parents],
        "base": origin.facts() if origin else None,
    }
    for parent in (*lineage["parents"], *([lineage["base"]] if origin else [])):
        run.note_data(parent["path"], parent["weights_sha256"])
    info = {"chat": any(parent.info.get("chat") for parent in parents), "merged": lineage}
    description = {
        "config": parents[0].recipe,
        "vocab_size": first.vocab_size,
        "max_seq_len": first.max_seq_len,
        "info": info,
    }
    if run.is_main:
        LocalCheckpoints().save(
            run.directory / "checkpoints",
            step=0,
            model=result,
            optimizer={},
            state={"seed": run.seed},
            description=description,
            tokenizer=parents[0].tokenizer,
        )
    rows = [(str(p.info["path"]), int(p.info["step"]), _distance(result, p.weights)) for p in parents]
    if origin:
        rows.append(
            (f"{origin.info['path']} (base)", int(origin.info["step"]), _distance(result, origin.weights))
        )
    run.log_table("parents", ["checkpoint", "step", "distance"], rows)
    for path, _, distance in rows:
        run.say(f"{distance:8.2%} away from {path}")
    n_params = count_parameters(first)
    run.say(f"merged {len(parents)} models of {n_params:,} parameters; use it as checkpoint={run.directory}")
    run.summary.update(n_params=n_params, weights_sha256=weights_sha256(result), merged=len(parents))


def _distance(result: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The length of the difference by the length of the other."""
    apart = sum(float((result[n].double() - t.double()).square().sum()) for n, t in other.items())
    whole = sum(float(t.double().square().sum()) for t in other.values())
    return math.sqrt(apart / whole) if whole else math.sqrt(apart)
