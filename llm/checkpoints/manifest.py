"""The list of a checkpoint's files with size and sha256: what makes a torn or altered one known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm.files import sha256_file, sync

MANIFEST = "manifest.json"
REQUIRED = frozenset({"model.safetensors", "optimizer.safetensors", "state.json", "model.json"})


def write(directory: Path) -> None:
    """Lists every file below `directory` and brings all of it to the disk, the directories included."""
    listed: dict[str, dict[str, Any]] = {}
    folders = {directory}
    for file in sorted(p for p in directory.rglob("*") if p.is_file()):
        name = file.relative_to(directory).as_posix()
        listed[name] = {"size": file.stat().st_size, "sha256": sha256_file(file)}
        sync(file)
        folders.add(file.parent)
    (directory / MANIFEST).write_bytes(_render(listed))
    sync(directory / MANIFEST)
    for folder in folders:
        sync(folder)


def fault(directory: Path) -> str | None:
    """What is wrong with the checkpoint in `directory`; None when it is whole.

    Every byte counts: those of the listed files by their hash, those of the manifest because it must be
    exactly what its own content renders to, hash of that content included.
    """
    try:
        content = (directory / MANIFEST).read_bytes()
        listed = json.loads(content)["files"]
        if _render(listed) != content or not set(listed) >= REQUIRED:
            return f"{MANIFEST} is damaged"
    except OSError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    for name, expected in listed.items():
        file = directory / name
        try:
            size = file.stat().st_size
            if size != expected["size"]:
                return f"{name} has {size:,} of {expected['size']:,} bytes"
            if sha256_file(file) != expected["sha256"]:
                return f"the checksum of {name} is wrong"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """One digest of a model's weights: name, type, shape and bytes of every tensor, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _render(listed: Mapping[str, Any]) -> bytes:
    files = json.dumps(listed, sort_keys=True)
    whole = {"files": listed, "sha256": hashlib.sha256(files.encode()).hexdigest()}
    return (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode()
