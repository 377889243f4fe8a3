"""Models in GGUF files, llama.cpp's form: metadata, a tokenizer and quantised tensors in one file.

The `gguf` package reads the file and expands its quantised blocks; tensors are expanded one at a time from
the file on disk, so that memory holds the model and one tensor more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llm.checkpoints.conversion import assemble
from llm.checkpoints.families.base import read_config
from llm.checkpoints.families.catalogue import family_of
from llm.checkpoints.gguf_architectures import ARCHITECTURES, MIXTRAL, Architecture, llama3_scaling
from llm.config import nearest
from llm.tokenizers.gguf import from_metadata
from llm.tokenizers.huggingface import HuggingFaceTokenizer
from llm.types import ConfigError

MAGIC = b"GGUF"
TABLES = ("rope_freqs", "attn_rot_embd")
"""Tensors that are no weights: they follow from the metadata, or say how to scale positions."""
ERRORS = (ValueError, IndexError, KeyError, OverflowError, TypeError, OSError, MemoryError)
"""What the package raises on a file that is not whole."""


def load_gguf(
    path: str | Path,
    *,
    max_seq_len: int | None = None,
    key: str = "path",
    dtype: torch.dtype = torch.float32,
    on_bytes: Callable[[int, int], object] = lambda _done, _total: None,
) -> tuple[nn.Module, HuggingFaceTokenizer, dict[str, Any]]:
    """The model and the tokenizer in a GGUF file.

    Args:
        path: the file, or a directory with exactly one.
        max_seq_len: longest sequence, in tokens; None for the one it was trained with.
        key: the config key to name in errors.
        dtype: of the weights, once expanded.
        on_bytes: called after each tensor with the bytes of the file read so far, and of all tensors.

    Returns:
        The model on the CPU in evaluation mode, with its config in our words as ``recipe``; the tokenizer;
        and facts: ``architecture``, ``name``, ``license``, ``n_parameters``, ``quantisation`` (how many
        tensors of each type), ``max_seq_len`` (that it was trained with), ``chat`` (whether it brought a chat
        template).

    Raises:
        ConfigError: the `gguf` package is missing; the file is none, is damaged or cut short; its
            architecture, quantisation or tokenizer is not known; tensors are missing, unexpected or of
            another shape; the tokenizer has more or fewer ids than the model.
    """
    file = _file(path, key)
    gguf = _package(path, key)
    reader = _opened(gguf, file, path, key)
    metadata = {name: _plain(entry.contents()) for name, entry in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    kind, architecture = _architecture(metadata, path, key)
    try:
        config = _config(kind, architecture, metadata, tensors)
        if "rope_freqs.weight" in tensors:
            factors = _expanded(gguf, tensors["rope_freqs.weight"].data, tensors["rope_freqs.weight"])
            config["rope_scaling"] = llama3_scaling(factors, config)
        tokenizer = from_metadata(metadata)
    except ConfigError as error:
        what = f"{error.value}: " if error.key and error.value is not None else ""
        raise ConfigError(key, path, f"{what}{error.mend}") from error
    if tokenizer.vocab_size != config["vocab_size"]:
        mend = f"its tokenizer has {tokenizer.vocab_size} ids and its model {config['vocab_size']}"
        raise ConfigError(key, path, f"{mend} (token_embd.weight): they do not belong together")
    family = family_of(architecture.model_type)
    assert family is not None
    progress = _Progress(sum(int(tensor.n_bytes) for tensor in reader.tensors), on_bytes)
    stored = _stored(gguf, architecture, config, tensors, dtype, progress, path, key)
    try:
        recipe = read_config(family, config)
        model = assemble(family, recipe, config, stored, max_seq_len=max_seq_len, path=path, key=key)
    except ConfigError as error:
        raise ConfigError(key, path, _in_their_words(error.mend, kind, architecture)) from error
    facts = {
        "architecture": kind,
        "name": metadata.get("general.name"),
        "license": metadata.get("general.license"),
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "quantisation": dict(Counter(tensor.tensor_type.name for tensor in reader.tensors)),
        "max_seq_len": config.get(family.positions),
        "chat": tokenizer.chat_template is not None,
    }
    return model, tokenizer, facts


class _Progress:
    """Counts the bytes of the tensors read."""

    def __init__(self, total: int, tell: Callable[[int, int], object]) -> None:
        self.done, self.total, self.tell = 0, total, tell

    def add(self, n_bytes: int) -> None:
        self.done += n_bytes
        self.tell(self.done, self.total)


# ----------------------------------------------------------------------------- the file


def _file(path: str | Path, key: str) -> Path:
    place = Path(path).expanduser()
    if place.is_dir():
        found = sorted(place.glob("*.gguf"))
        if len(found) != 1:
            mend = f"is a directory with {len(found)} GGUF files; name one of them"
            raise ConfigError(key, path, mend)
        place = found[0]
    try:
        with place.open("rb") as opened:
            magic = opened.read(len(MAGIC))
    except OSError as error:
        raise ConfigError(key, path, f"cannot be read: {error.strerror}") from error
    if magic != MAGIC:
        raise ConfigError(key, path, "is not a GGUF file: it does not begin with GGUF")
    return place


def _package(path: str | Path, key: str) -> ModuleType:
    try:
        import gguf
    except ModuleNotFoundError as error:
        mend = "reading GGUF files needs the gguf package: pip install 'llm-experiments[gguf]'"
        raise ConfigError(key, path, mend) from error
    return gguf


def _opened(gguf: ModuleType, file: Path, path: str | Path, key: str) -> Any:

    class Reader(gguf.GGUFReader):  # type: ignore[misc,name-defined]
        """Cuts its hundred thousand strings out of a plain array over the file, in half the time."""

        def __setattr__(self, name: str, value: Any) -> None:
            plain = value.view(np.ndarray) if isinstance(value, np.memmap) else value
            super().__setattr__(name, plain)

    try:
        reader = Reader(file)
    except ERRORS as error:
        what = " ".join(str(error).split())
        if number := re.search(r"(\d+)\)? is not a valid GGMLQuantizationType", what):
            kinds = ", ".join(sorted(one.name for one in gguf.GGMLQuantizationType))
            mend = f"holds a tensor of an unknown quantisation, number {number[1]}; known: {kinds}"
        else:
            mend = f"is damaged or cut short ({what}); fetch it again"
        raise ConfigError(key, path, mend) from error
    if reader.byte_order != "I":
        raise ConfigError(key, path, "was written for machines of the other byte order; convert it")
    parts = reader.fields.get("split.count")
    if parts is not None and parts.contents() > 1:
        mend = f"is one of {parts.contents()} parts of a model; join them with llama.cpp's gguf-split --merge"
        raise ConfigError(key, path, mend)
    return reader


def _plain(value: Any) -> Any:
    """A value of the metadata; numbers were kept in 32 bits, and 1e-05 should not read 9.99999974e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _architecture(metadata: Mapping[str, Any], path: str | Path, key: str) -> tuple[str, Architecture]:
    kind = str(metadata.get("general.architecture"))
    if kind not in ARCHITECTURES:
        known = list(ARCHITECTURES)
        mend = f"is of the architecture {kind}, which is not supported{nearest(kind, known)}"
        raise ConfigError(key, path, f"{mend}; supported: {', '.join(known)}")
    if kind == "llama" and metadata.get("llama.expert_count"):
        return kind, MIXTRAL
    return kind, ARCHITECTURES[kind]


def _config(
    kind: str, architecture: Architecture, metadata: Mapping[str, Any], tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """What would stand in ``config.json``."""
    config = dict(architecture.fallback)
    for theirs, name in architecture.fields.items():
        value = metadata.get(f"{kind}.{theirs}")
        if isinstance(value, list):
            raise ConfigError("", "", f"has another {kind}.{theirs} in each layer, which is not supported")
        if value is not None:
            config[name] = value
        elif theirs in _NEEDED:
            raise ConfigError("", "", f"its metadata do not say {kind}.{theirs}")
    if "token_embd.weight" not in tensors:
        raise ConfigError("", "", "token_embd.weight is missing")
    config["vocab_size"] = int(tensors["token_embd.weight"].shape[-1])
    config["tie_word_embeddings"] = "output.weight" not in tensors
    architecture.complete(config, metadata)
    return config


_NEEDED = ("embedding_length", "block_count", "attention.head_count", "feed_forward_length", "context_length")


# ----------------------------------------------------------------------------- tensors


def _stored(
    gguf: ModuleType,
    architecture: Architecture,
    config: dict[str, Any],
    tensors: Mapping[str, Any],
    dtype: torch.dtype,
    progress: _Progress,
    path: str | Path,
    key: str,
) -> dict[str, Callable[[], Tensor]]:
    """Readers of all tensors by Hugging Face's names; by their own where there is no such name."""

    def read(tensor: Any, expert: int | None) -> Tensor:
        name = _parts(tensor.name)[1]
        data = tensor.data if expert is None else tensor.data[expert]
        try:
            expanded = _expanded(gguf, data, tensor)
        except (NotImplementedError, ValueError) as error:
            mend = (
                f"{tensor.name} is quantised as {tensor.tensor_type.name}, which cannot be expanded: {error}"
            )
            raise ConfigError(key, path, mend) from error
        undo = architecture.undo.get(name)
        try:
            restored = expanded if undo is None else undo(expanded, config)
        except RuntimeError:  # of another shape, which is told of where all shapes are compared
            restored = expanded
        progress.add(int(data.nbytes))
        return restored.to(dtype)

    stored: dict[str, Callable[[], Tensor]] = {}
    for tensor in tensors.values():
        name = _parts(tensor.name)[1]
        if name in TABLES:
            continue
        theirs = _their_name(architecture, tensor.name)
        if theirs is None:
            stored[tensor.name] = partial(read, tensor, None)
        elif "*" in theirs:
            for expert in range(int(tensor.shape[-1])):
                stored[theirs.replace("*", str(expert))] = partial(read, tensor, expert)
        else:
            stored[theirs] = partial(read, tensor, None)
    return stored


def _expanded(gguf: ModuleType, data: Any, tensor: Any) -> Tensor:
    """The numbers of a tensor, or of a part of it, in float32 and memory of their own."""
    numbers = np.asarray(gguf.dequantize(data, tensor.tensor_type), dtype=np.float32)
    return torch.from_numpy(np.require(numbers, requirements=("C", "W")))


def _parts(name: str) -> tuple[str | None, str, str | None, str]:
    """Block, name, expert and parameter of a tensor: ``blk.3.ffn_up.1.weight``."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)(?:\.(\d+))?\.(weight|bias)", name)
    return (match[1], match[2], match[3], match[4]) if match else (None, name, None, "")


def _their_name(architecture: Architecture, name: str) -> str | None:
    """Hugging Face's name of a tensor; with a star in it for the number of an expert."""
    block, short, expert, parameter = _parts(name)
    if expert is not None:  # older files have a tensor for each expert
        short += "_exps"
    found = architecture.others.get(short) if block is None else architecture.blocks.get(short)
    if found is None:
        return None
    if expert is not None:
        found = found.replace("*", expert)
    return f"{found}.{parameter}" if block is None else f"{architecture.block}.{block}.{found}.{parameter}"


def _in_their_words(mend: str, kind: str, architecture: Architecture) -> str:
    """An error in the names that stand in the file."""
    block = re.escape(architecture.block)
    for ours, theirs in architecture.blocks.items():
        pattern = re.escape(theirs).replace(r"\*", r"(?:\d+)")
        mend = re.sub(rf"{block}\.(\d+)\.{pattern}\b", rf"blk.\1.{ours}", mend)
    for ours, theirs in architecture.others.items():
        mend = re.sub(rf"{re.escape(theirs)}\b", ours, mend)
    for ours, theirs in architecture.fields.items():
        mend = re.sub(rf"\b{theirs}\b", f"{kind}.{ours}", mend)
    return mend.replace("config.json", "metadata")
