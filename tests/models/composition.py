"""Models and parts from their YAML files, by omegaconf and importlib alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from llm.models.decoder import Decoder

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"
PARTS = ("attention", "feed_forward", "position")


def names(group: str, folder: Path = CONF) -> list[str]:
    return sorted(path.stem for path in (folder / group).glob("*.yaml"))


def presets() -> list[str]:
    """YAML files of conf/model that make a Decoder."""
    return [
        n for n in names("") if str(OmegaConf.load(CONF / f"{n}.yaml").get("_target_")).endswith(".Decoder")
    ]


def instantiate(node: Any) -> Any:
    """The partial that a `_target_` node names."""
    values = {k: instantiate(v) if isinstance(v, DictConfig) else v for k, v in node.items()}
    module, _, name = values.pop("_target_").rpartition(".")
    assert values.pop("_partial_") is True
    return partial(getattr(importlib.import_module(module), name), **values)


def load_part(group: str, name: str, folder: Path = CONF) -> Any:
    return instantiate(OmegaConf.load(folder / group / f"{name}.yaml"))


def load_model(preset: str, **overrides: Any) -> partial[Decoder]:
    """A preset of conf/model. A part is overridden by its partial, anything else by its value."""
    config = OmegaConf.load(CONF / f"{preset}.yaml")
    for entry in config.pop("defaults"):
        if entry != "_self_":
            ((group, name),) = entry.items()
            part = OmegaConf.load(CONF / group / f"{name}.yaml")
            config[group] = OmegaConf.merge(part, config.get(group, {}))
    made: partial[Decoder] = instantiate(config)
    return partial(made, **overrides)


def on_meta(make_model: Callable[[], Decoder]) -> Decoder:
    """A model whose tensors have shapes and no storage, however large it is."""
    with torch.device("meta"):
        return make_model()


SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "max_seq_len": 32,
    "d_model": 48,
    "n_layers": 2,
    "n_heads": 6,
    "n_kv_heads": None,
    "dropout": 0.0,
    "init_std": 0.1,  # large enough for every part to matter in the result
}


def small(preset: str = "decoder", seed: int = 0, **overrides: Any) -> Decoder:
    """A tiny initialised model."""
    model = load_model(preset, **{**SMALL, **overrides})()
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def ids(batch: int, length: int, vocab_size: int = SMALL["vocab_size"], seed: int = 0) -> torch.Tensor:
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))
