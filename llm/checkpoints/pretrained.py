"""A model trained before, by this project or by anyone: from a run, Hugging Face's form or a GGUF file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, cast

import torch
from pydantic import Field
from torch import nn

from llm.checkpoints import huggingface, local
from llm.checkpoints.conversion import fill_tables
from llm.checkpoints.extension import extended
from llm.checkpoints.gguf import load_gguf
from llm.checkpoints.recipe import recipe_of, with_adapter
from llm.config import build
from llm.files import sha256_file
from llm.models.weights import persistent
from llm.runs.run import Run
from llm.tokenizers.huggingface import HuggingFaceTokenizer
from llm.tokenizers.huggingface import read as read_tokenizer
from llm.types import ConfigError, LanguageModel, Tokenizer

Task = TypeVar("Task", bound=Callable[..., Any])

HUB = "hub:"
"""Before ``org/name`` in a path: a repository of the Hugging Face Hub."""

GIVE = "give the folder of a run that trained one, as runs/NAME/..., a Hugging Face directory or a .gguf file"

HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt")
"""What is fetched of a repository: never a pickle, never code."""


class Loaded(NamedTuple):
    """A model ready to use.

    Attributes:
        model: on the CPU, in evaluation mode.
        tokenizer: the one it was trained with.
        info: facts: ``path``, ``step`` (0 for a model from elsewhere), ``config`` (the model's config node),
            ``chat`` (whether it was taught to answer).
    """

    model: LanguageModel
    tokenizer: Tokenizer
    info: dict[str, Any]


class Pretrained:
    """A `model` component that starts from trained weights: ``model=pretrained model.path=...``.

    Args:
        path: a run's folder or one of its checkpoints; a directory in Hugging Face's form; a GGUF file; or
            ``hub:org/name``.
        hub: ``org/name`` on the Hugging Face Hub, downloaded once into its own cache.
        revision: branch, tag or commit of `hub`.
        max_seq_len: longest sequence, in tokens, when it is to be another than it was trained with.
        scaling: of the rotary positions, for a longer `max_seq_len`; one of `llm.models.rope_scaling`.
        adapter: ``(model) -> model``: a few new weights are trained in place of the old ones.

    Raises:
        ConfigError: neither `path` nor `hub`, or both.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        hub: str | None = None,
        revision: str | None = None,
        max_seq_len: Annotated[int, Field(gt=0)] | None = None,
        scaling: Callable[..., Any] | None = None,
        adapter: Callable[..., nn.Module] | None = None,
    ) -> None:
        self.check_arguments(path=path, hub=hub)
        self.path = str(path) if path is not None else f"{HUB}{hub}"
        self.key = "path" if path is not None else "hub"
        self.revision, self.max_seq_len, self.scaling = revision, max_seq_len, scaling
        self.adapter = adapter

    @staticmethod
    def check_arguments(*, path: str | None = None, hub: str | None = None) -> None:
        """One place to load from."""
        if path is None and hub is None:
            raise ConfigError("path", "???", f"which model? {GIVE}, or model.hub=org/name")
        if path is not None and hub is not None:
            raise ConfigError("hub", hub, f"path={path} is given too; give one of them")

    @classmethod
    def chosen(cls, checkpoint: str | None, model: Pretrained | None) -> Pretrained:
        """The model of a task that takes ``checkpoint=...`` or ``model=pretrained``.

        Raises:
            ConfigError: neither is given, or both are.
        """
        _require_one(checkpoint=checkpoint, model=model)
        if model is not None:
            return model
        assert checkpoint is not None
        chosen = cls(path=checkpoint)
        chosen.key = "checkpoint"
        return chosen

    @property
    def place(self) -> Path:
        """Where its files are; see `locate`."""
        return locate(self.path, key=self.key, revision=self.revision)

    def load(self, run: Run | None = None) -> Loaded:
        """The model, as this component describes it.

        Args:
            run: shows how far a large file is read.

        Raises:
            ConfigError: there is no such model, it is damaged, or it is of a kind that is not supported.
        """
        loaded = load(self.path, key=self.key, revision=self.revision, run=run)
        if self.max_seq_len is not None or self.scaling is not None:
            loaded = self._extended(loaded)
        if self.adapter is not None:
            model: Any = self.adapter(loaded.model)
            recipe = with_adapter(loaded.info["config"], recipe_of(self.adapter))
            loaded = Loaded(model, loaded.tokenizer, {**loaded.info, "config": recipe})
        return loaded

    def _extended(self, loaded: Loaded) -> Loaded:
        """The same weights with another longest sequence and other rotary frequencies."""
        old, tokenizer, info = loaded
        max_seq_len = self.max_seq_len or old.max_seq_len
        scaling = recipe_of(self.scaling) if self.scaling is not None else None
        recipe = extended(info["config"], old.max_seq_len, max_seq_len, scaling)
        with torch.device("meta"):
            sizes = {"vocab_size": old.vocab_size, "max_seq_len": max_seq_len}
            model = build({**recipe, **sizes, "_partial_": False})
        model.load_state_dict(persistent(cast(nn.Module, old)), strict=False, assign=True)
        fill_tables(model)
        return Loaded(model.eval(), tokenizer, {**info, "config": recipe})

    def fingerprint(self) -> str:
        """A digest of the weights' files."""
        place = self.place
        if place.is_file():
            return sha256_file(place)
        names = sorted(p for p in place.glob("*.safetensors") if p.name != "optimizer.safetensors")
        return hashlib.sha256(" ".join(sha256_file(name) for name in names).encode()).hexdigest()


def _require_one(*, checkpoint: str | None = None, model: Any = None) -> None:
    if checkpoint is None and model is None:
        raise ConfigError("checkpoint", "???", f"which model? {GIVE}")
    if checkpoint is not None and model is not None:
        raise ConfigError("checkpoint", checkpoint, "model=pretrained is given too; give one of them")


def of_one_model(task: Task) -> Task:
    """For a task that takes ``checkpoint`` or ``model``: without either it is refused before it starts."""
    task.check_arguments = _require_one  # type: ignore[attr-defined]
    return task


def load(
    path: str | Path, *, key: str = "checkpoint", revision: str | None = None, run: Run | None = None
) -> Loaded:
    """The model that `path` means, with its tokenizer.

    Args:
        path: as of `Pretrained`.
        key: the config key to name in errors.
        revision: of a repository on the Hub.
        run: shows how far a large file is read.

    Raises:
        ConfigError: as `Pretrained.load`.
    """
    place = locate(path, key=key, revision=revision)
    if place.is_file():
        return _from_gguf(place, key, run)
    if is_huggingface(place):
        return _from_huggingface(place, path, key, run)
    return Loaded(*local.load_model(place, key=key))


def require_context(model: LanguageModel, seq_len: int) -> None:
    """Refuses sequences beyond what a model reads.

    Raises:
        ConfigError: `seq_len`.
    """
    if seq_len > model.max_seq_len:
        mend = f"the model reads at most {model.max_seq_len} tokens; give shorter sequences, or extend it"
        raise ConfigError("seq_len", seq_len, f"{mend}: model.max_seq_len={seq_len} model/scaling=yarn")


def require_tokenizer(model: LanguageModel, tokenizer: Tokenizer, *, key: str, value: object) -> None:
    """Refuses a vocabulary that is larger than the model's; a smaller one is common, as padding.

    Raises:
        ConfigError: `key`.
    """
    if tokenizer.vocab_size > model.vocab_size:
        mend = f"its tokenizer has {tokenizer.vocab_size:,} ids, the model {model.vocab_size:,}"
        raise ConfigError(key, value, f"{mend}: they do not belong together")


def locate(path: str | Path, *, key: str = "checkpoint", revision: str | None = None) -> Path:
    """Where the model's files are: a whole checkpoint of ours, a directory in another form, or a file.

    Raises:
        ConfigError: nowhere.
    """
    if str(path).startswith(HUB):
        return _download(str(path).removeprefix(HUB), revision, key)
    given = Path(path).expanduser()
    if given.is_file():
        if given.suffix != ".gguf" and not _is_gguf(given):
            raise ConfigError(key, path, f"is a file that is no model; {GIVE}")
        return given
    if is_huggingface(given):
        return given
    if given.suffix == ".gguf" and not given.exists():
        raise ConfigError(key, path, f"no such file; {GIVE}")
    if given.is_dir() and len(found := list(given.glob("*.gguf"))) == 1:
        return found[0]
    if given.is_dir() and list(given.glob("*.safetensors")) and not (given / "model.json").is_file():
        raise ConfigError(key, path, "has weights, but no config.json to say what they are of; fetch it too")
    return local.resolve(path, key=key)


def _is_gguf(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"GGUF"


def is_huggingface(place: Path) -> bool:
    """Whether a directory is a model in Hugging Face's form."""
    return (place / "config.json").is_file() and not (place / "model.json").is_file()


def _from_huggingface(place: Path, path: str | Path, key: str, run: Run | None) -> Loaded:
    with _shown(run, None, "tensors") as progress:
        model: Any = huggingface.load_pretrained(place, key=key, on_tensor=progress)
    try:
        tokenizer = read_tokenizer(place)
    except ConfigError as error:
        raise ConfigError(key, path, f"the model is whole, its tokenizer is not: {error.mend}") from error
    require_tokenizer(model, tokenizer, key=key, value=path)
    return Loaded(model, tokenizer, _facts(place, model.recipe, tokenizer))


def _from_gguf(place: Path, key: str, run: Run | None) -> Loaded:
    with _shown(run, place.stat().st_size, "bytes") as progress:
        told = 0

        def on_bytes(done: int, _: int) -> None:
            nonlocal told
            progress(done - told)
            told = done

        model, tokenizer, _ = load_gguf(place, key=key, on_bytes=on_bytes)
    made: Any = model
    return Loaded(made, tokenizer, _facts(place, made.recipe, tokenizer))


@contextmanager
def _shown(run: Run | None, total: int | None, unit: str) -> Iterator[Callable[..., object]]:
    """Something to call with how much more is read."""
    if run is None:
        yield lambda _=1: None
        return
    with run.progress("loading the model", total, unit=unit) as progress:
        yield progress.advance


def _facts(place: Path, recipe: Mapping[str, Any], tokenizer: HuggingFaceTokenizer) -> dict[str, Any]:
    return {"path": place, "step": 0, "config": recipe, "chat": tokenizer.chat_template is not None}


def _download(repository: str, revision: str | None, key: str) -> Path:
    """The repository's files, from the Hub's own cache when they are there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(HUB_FILES)))
    except HFValidationError as error:
        raise ConfigError(key, repository, "is no name of a repository; give org/name") from error
    except LocalEntryNotFoundError as error:
        mend = "is not in the cache, and the Hub cannot be reached; download it where there is a network"
        raise ConfigError(key, repository, f"{mend}, or give model.path=DIR") from error
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(key, repository, f"cannot be downloaded: {reason}") from error
