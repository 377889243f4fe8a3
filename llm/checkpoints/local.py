"""Checkpoints in a directory: written whole or not at all, checksummed, never pickled.

    RUN/checkpoints/
        step_000100/
            model.safetensors      weights by parameter name
            optimizer.safetensors  its state, as "parameter:key"
            state.json             how far training is
            model.json             the model's config, vocab_size, max_seq_len, facts about its training
            tokenizer/             what `llm.tokenizers.base.load` reads
            manifest.json          size and sha256 of all of these
        last -> step_000100        the newest whole one
        best -> step_000080        the one with the lowest validation loss

A checkpoint is written under a hidden name, brought to the disk, then renamed: whoever sees the name sees
all of it. A kill at any moment leaves the older ones and at worst a hidden folder, which the next save
removes.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llm.checkpoints import manifest
from llm.config import build
from llm.files import sync
from llm.migrations import renewed
from llm.models.weights import persistent
from llm.tokenizers.base import load as load_tokenizer
from llm.types import ConfigError, LanguageModel, Tokenizer

STEP = re.compile(r"step_(\d{6,})\Z")


@dataclass(frozen=True)
class Checkpoint:
    """What one step directory holds.

    Attributes:
        path: the directory.
        step: optimizer steps made.
        model: weights by parameter name.
        optimizer: optimizer state as ``"parameter:key"``.
        state: the trainer's progress, plain values.
        description: ``{"config", "vocab_size", "max_seq_len", "info"}`` of the model.
    """

    path: Path
    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    description: dict[str, Any]


class LocalCheckpoints:
    """When checkpoints are written, and which of them stay.

    Args:
        every_steps: Optimizer steps between two; one more is written when training ends or is interrupted.
        keep: How many of the newest stay.
        keep_best: Also write and keep the one with the lowest validation loss.
    """

    def __init__(
        self,
        *,
        every_steps: Annotated[int, Field(gt=0)] = 500,
        keep: Annotated[int, Field(gt=0)] = 2,
        keep_best: bool = True,
    ) -> None:
        self.every_steps, self.keep, self.keep_best = every_steps, keep, keep_best

    def save(
        self,
        directory: Path,
        *,
        step: int,
        model: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        state: Mapping[str, Any],
        description: Mapping[str, Any],
        tokenizer: Tokenizer | None,
        best: bool = False,
    ) -> Path:
        """Writes one checkpoint below `directory`, points `last` (and `best`) at it, drops old ones.

        Only one process writes. A directory of the same step is replaced.
        """
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob(".tmp-*"):  # of a save that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        final = directory / f"step_{step:06d}"
        partial = directory / f".tmp-{final.name}"
        partial.mkdir()
        for name, tensors in (("model", model), ("optimizer", optimizer)):
            save_file({n: t.contiguous() for n, t in tensors.items()}, partial / f"{name}.safetensors")
        (partial / "state.json").write_text(json.dumps({**state, "step": step}, indent=1), encoding="utf-8")
        (partial / "model.json").write_text(json.dumps(dict(description), indent=1), encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save(partial / "tokenizer")
        manifest.write(partial)
        if final.exists():  # training went on from an earlier step and is here again
            final.rename(directory / f".tmp-replaced-{final.name}")
        partial.rename(final)
        sync(directory)
        _point(directory / "last", final)
        if best:
            _point(directory / "best", final)
        self._drop_old(directory)
        return final

    def _drop_old(self, directory: Path) -> None:
        best = (directory / "best").resolve()
        for old in _steps(directory)[self.keep :]:
            if old.resolve() != best:
                hidden = directory / f".tmp-old-{old.name}"
                old.rename(hidden)  # first out of sight: a kill while deleting leaves no torn checkpoint
                shutil.rmtree(hidden)
        for leftover in directory.glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def newest_whole(directory: Path) -> Path | None:
    """The newest checkpoint below `directory` whose files are all as they were written; None without one.

    Warns of each torn one it passes over.
    """
    for path in _steps(directory):
        torn = manifest.fault(path)
        if torn is None:
            return path
        warnings.warn(f"{path}: {torn}; passing over this checkpoint", RuntimeWarning, stacklevel=2)
    return None


def resolve(path: str | Path, *, key: str = "checkpoint") -> Path:
    """The whole checkpoint that `path` means.

    Args:
        path: A run's directory, its ``checkpoints`` directory (both mean the newest whole one), one step's
            directory, or one of the links ``last`` and ``best``.
        key: The config key that a mistake is reported under.

    Raises:
        ConfigError: `path` is no checkpoint, or all that it could mean are torn.
    """
    given = Path(path).expanduser()
    if not given.exists() and not (given.name == "last" and given.parent.is_dir()):
        raise ConfigError(key, path, "no such directory; give a run's directory, as runs/NAME/...")
    if given.name == "last" and given.is_symlink():
        given = given.parent
    if STEP.match(given.resolve().name) or (given / "model.json").is_file():
        given = given.resolve()
        if torn := manifest.fault(given):
            mend = f"the checkpoint is torn: {torn}"
            earlier = [p.name for p in _steps(given.parent) if p != given and manifest.fault(p) is None]
            raise ConfigError(key, path, f"{mend}; use {given.parent / earlier[0]}" if earlier else mend)
        return given
    for directory in (given / "checkpoints", given):
        if directory.is_dir() and _steps(directory):
            newest = newest_whole(directory)
            if newest is None:
                fault = manifest.fault(_steps(directory)[0])
                mend = f"every checkpoint in it is torn, the newest: {fault}; restore it, or train again"
                raise ConfigError(key, path, mend)
            return newest
    raise ConfigError(key, path, "holds no checkpoint; give the directory of a run that trained a model")


def load(path: str | Path, *, key: str = "checkpoint") -> Checkpoint:
    """Everything in the checkpoint that `path` means, tensors on the CPU. Raises as `resolve` does."""
    place = resolve(path, key=key)
    state = json.loads((place / "state.json").read_text(encoding="utf-8"))
    return Checkpoint(
        path=place,
        step=int(state["step"]),
        model=load_file(place / "model.safetensors"),
        optimizer=load_file(place / "optimizer.safetensors"),
        state=state,
        description=json.loads((place / "model.json").read_text(encoding="utf-8")),
    )


def load_model(
    path: str | Path, *, key: str = "checkpoint"
) -> tuple[LanguageModel, Tokenizer, dict[str, Any]]:
    """The trained model in the checkpoint that `path` means, in evaluation mode on the CPU.

    Returns:
        The model, its tokenizer, and facts: ``step``, ``path``, ``config`` (the model's), and whatever its
        task noted, as ``chat``.

    Raises:
        ConfigError: `path` is no whole checkpoint, its config may not be built, or its weights do not fit.
    """
    place = resolve(path, key=key)
    description = json.loads((place / "model.json").read_text(encoding="utf-8"))
    sizes = {name: description[name] for name in ("vocab_size", "max_seq_len")}
    recipe = renewed(description["config"])
    made = build({**recipe, **sizes, "_partial_": False})
    weights = load_file(place / "model.safetensors")
    require_same_architecture(weights, made, path, key=key)
    tied = set(made.state_dict()) - set(weights)
    missing, _ = made.load_state_dict(weights, strict=False)
    assert set(missing) <= tied
    tokenizer = load_tokenizer(place / "tokenizer", key=key)
    state = json.loads((place / "state.json").read_text(encoding="utf-8"))
    info = {**description["info"], "step": int(state["step"]), "path": place, "config": recipe}
    return made.eval(), tokenizer, info


def require_same_architecture(
    weights: Mapping[str, Tensor], model: nn.Module, path: str | Path, *, key: str = "checkpoint"
) -> None:
    """Refuses weights that are not those of `model`.

    Raises:
        ConfigError: names the first tensor that differs, with both shapes.
    """
    expected = persistent(model)
    for name, tensor in expected.items():
        if name not in weights:
            raise ConfigError(key, path, f"is of another architecture: it has no {name}, the model does")
        if weights[name].shape != tensor.shape:
            there, here = list(weights[name].shape), list(tensor.shape)
            mend = f"is of another architecture: {name} has shape {there}, the model's {here}"
            raise ConfigError(key, path, mend)
    if extra := sorted(set(weights) - set(expected)):
        raise ConfigError(key, path, f"is of another architecture: it has {extra[0]}, the model does not")


def _steps(directory: Path) -> list[Path]:
    """Step directories, newest first."""
    found = [(int(match[1]), path) for path in directory.iterdir() if (match := STEP.match(path.name))]
    return [path for _, path in sorted(found, reverse=True) if path.is_dir()]


def _point(link: Path, target: Path) -> None:
    """Makes `link` a relative link to `target` in one move, so that it never points nowhere."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(link)
    sync(link.parent)
