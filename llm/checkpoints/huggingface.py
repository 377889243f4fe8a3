"""Models in Hugging Face's form: a directory with ``config.json`` and safetensors, sharded or not.

Nothing is unpickled: weights in ``.bin`` files are refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from llm import files
from llm.checkpoints.conversion import assemble
from llm.checkpoints.families.base import Family, fits, read_config, write_config
from llm.checkpoints.families.catalogue import families, family_of
from llm.config import nearest
from llm.models.weights import persistent
from llm.types import ConfigError

SHARD_BYTES = 5_000_000_000


def load_pretrained(
    path: str | Path,
    *,
    max_seq_len: int | None = None,
    key: str = "path",
    on_tensor: Callable[[], object] = lambda: None,
) -> nn.Module:
    """The model in a directory that transformers' ``save_pretrained`` or the Hub left, in evaluation mode.

    Args:
        path: the directory.
        max_seq_len: longest sequence, in tokens; None for the one it was trained with.
        key: the config key to name in errors.
        on_tensor: called after each of the model's tensors.

    Returns:
        The model on the CPU, in the types of the file; its ``recipe`` is its config in our words.

    Raises:
        ConfigError: the architecture is not known, tensors are missing, unexpected or of another shape, the
            files are damaged, or the weights are pickled.
    """
    folder = Path(path).expanduser()
    theirs = _read_json(folder / "config.json", path, key)
    family = _family(theirs, path, key)
    recipe = _recipe(family, theirs, path, key)
    with ExitStack() as opened:
        stored = {
            name: partial(opened_file.get_tensor, name)
            for opened_file in _open_shards(folder, path, key, opened)
            for name in opened_file.keys()  # noqa: SIM118  (a handle, no mapping)
        }
        return assemble(
            family,
            recipe,
            theirs,
            stored,
            max_seq_len=max_seq_len,
            path=path,
            key=key,
            on_tensor=on_tensor,
        )


def save_pretrained(
    model: nn.Module,
    tokenizer: Any,
    path: str | Path,
    *,
    recipe: Mapping[str, Any] | None = None,
    chats: bool = True,
) -> Family:
    """Writes `model` as transformers reads it: ``config.json``, safetensors, the tokenizer's files.

    Args:
        model: one of `llm.models.decoder.Decoder`, or of `llm.models.encoder_decoder.EncoderDecoder`.
        tokenizer: whose files go along, by its ``save_pretrained(path)``; None for none.
        path: the directory, which is made.
        recipe: the model's config; None for ``model.recipe``.
        chats: whether the model was taught to answer; no chat template goes along with one that was not.

    Returns:
        The family it was written as.

    Raises:
        ConfigError: no architecture of transformers has these parts.
    """
    config = dict(recipe if recipe is not None else model.recipe)  # type: ignore[arg-type]
    family = _family_for(config)
    folder = Path(path).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, tensor in persistent(model).items():
        rule, names = family.rule(name)
        tensors |= dict(zip(names, rule.split(tensor.detach(), config), strict=True))
    _write_shards(folder, {name: tensor.contiguous() for name, tensor in tensors.items()})
    sizes: Any = model
    complete = with_sizes(config, persistent(model))
    written = write_config(family, complete, vocab_size=sizes.vocab_size, max_seq_len=sizes.max_seq_len)
    written["dtype"] = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    # Where nothing is said, transformers takes the ids of the first model of the family.
    eos = getattr(tokenizer, "eos_id", None)
    written |= {"bos_token_id": getattr(tokenizer, "bos_id", None), "eos_token_id": eos, "pad_token_id": eos}
    files.write_json(folder / "config.json", written)
    for shard in folder.glob("*.safetensors"):  # which its library lets nobody else read
        shutil.copymode(folder / "config.json", shard)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        about = _read_json(folder / "tokenizer_config.json", path, "output")
        if not chats and about.pop("chat_template", None) is not None:
            files.write_json(folder / "tokenizer_config.json", about)
    return family


# ----------------------------------------------------------------------------- reading


def _read_json(file: Path, path: str | Path, key: str) -> dict[str, Any]:
    if not file.parent.is_dir():
        raise ConfigError(key, path, "no such directory; give one with config.json and safetensors")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
        return content
    except FileNotFoundError:
        raise ConfigError(key, path, f"has no {file.name}: not a model in Hugging Face's form") from None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(key, path, f"its {file.name} cannot be read: {error}") from error


def _family(theirs: Mapping[str, Any], path: str | Path, key: str) -> Family:
    if "model_type" not in theirs:
        raise ConfigError(key, path, "its config.json has no model_type, by which an architecture is known")
    kind = str(theirs["model_type"])
    family = family_of(kind, theirs)
    if family is None:
        known = list(dict.fromkeys(family.model_type for family in families()))
        mend = f"is of the architecture {kind}, which is not supported{nearest(kind, known)}"
        raise ConfigError(key, path, f"{mend}; supported: {', '.join(known)}")
    return family


def _recipe(family: Family, theirs: Mapping[str, Any], path: str | Path, key: str) -> dict[str, Any]:
    for name, value in family.constants.items():
        if theirs.get(name, value) != value:
            mend = f"its config.json has {name}={theirs[name]}; of {family.model_type}, only {value} is known"
            raise ConfigError(key, path, mend)
    try:
        return read_config(family, theirs)
    except KeyError as error:
        mend = f"its config.json has a rope_scaling or a key {error} that is not supported"
        raise ConfigError(key, path, mend) from error


def _open_shards(folder: Path, path: str | Path, key: str, opened: ExitStack) -> Iterator[Any]:
    """Every safetensors file that belongs to the model."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names: Sequence[str] = sorted(set(_read_json(index, path, key)["weight_map"].values()))
    elif (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    else:
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        mend = "has no model.safetensors"
        if pickled:
            mend = f"has its weights in {pickled[0]} only, a pickle, which can run any code: convert it first"
        raise ConfigError(key, path, mend)
    for name in names:
        if Path(name).name != name:
            raise ConfigError(key, path, f"its index names {name}, which is not a file in it")
        try:
            yield opened.enter_context(safe_open(folder / name, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise ConfigError(key, path, f"{name} is damaged or missing: {error}") from error


# ----------------------------------------------------------------------------- writing


def _family_for(config: Mapping[str, Any]) -> Family:
    judged = [(fits(family, dict(config)), family) for family in families()]
    for mistakes, family in judged:
        if not mistakes:
            return family
    mistakes, family = min(judged, key=lambda one: len(one[0]))
    mend = f"no architecture of transformers has these parts; {family.model_type} is nearest, but for"
    raise ConfigError("model", config.get("_target_"), f"{mend} {', '.join(mistakes[:4])}")


def with_sizes(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A model's config with the sizes that it leaves to the parts' own rules, read off its tensors."""
    d_model, n_heads = config["d_model"], config["n_heads"]
    sizes = {"n_kv_heads": n_heads, "head_dim": d_model // n_heads}
    said = {**config, **{name: config.get(name) or size for name, size in sizes.items()}}
    for name in ("up", "dense.up", "experts.0.up"):
        inner = tensors.get(f"blocks.0.feed_forward.{name}.weight")
        if inner is not None and not said.get("d_ff"):
            said["d_ff"] = inner.shape[0]
    feed_forward = config.get("feed_forward") or {}
    if "n_experts" in feed_forward and not feed_forward.get("d_expert"):
        said["feed_forward"] = {**feed_forward, "d_expert": said["d_ff"]}
    return said


def _write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """One file, or several of at most `SHARD_BYTES` with an index."""
    shards: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        with files.replacing(folder / "model.safetensors") as temporary:
            save_file(shards[0], temporary, metadata={"format": "pt"})
        return
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with files.replacing(folder / file) as temporary:
            save_file(shard, temporary, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    files.write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where}
    )
