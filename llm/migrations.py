"""Saved configs of earlier versions, brought to this one: an old run composes, resumes and is reproduced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llm.types import ConfigError

CONFIG_VERSION = 2

Node = dict[str, Any]


def migrate(config: Node) -> Node:
    """A saved config at `CONFIG_VERSION`, brought there one version at a time."""
    version = config.get("config_version", CONFIG_VERSION)
    if not isinstance(version, int) or version > CONFIG_VERSION:
        raise ConfigError(
            "config_version", version, f"this checkout knows versions up to {CONFIG_VERSION}: update it"
        )
    while version < CONFIG_VERSION:
        config = MIGRATIONS[version](config)
        version += 1
    return {**config, "config_version": CONFIG_VERSION}


def renewed(node: Any) -> Any:
    """A config, or a part of one, in which each component that has moved is named as it is now."""
    if isinstance(node, Mapping):
        fresh = {name: renewed(value) for name, value in node.items()}
        change = MOVED.get(str(fresh.get("_target_")))
        return change(fresh) if change else fresh
    return [renewed(one) for one in node] if isinstance(node, list | tuple) else node


def _gelu(node: Node) -> Node:
    approximate = node.pop("approximate", "tanh")
    activation = "gelu" if approximate == "none" else "gelu_tanh"
    return {**node, "_target_": "llm.models.feed_forward.mlp.MLP", "activation": activation}


def _swiglu(node: Node) -> Node:
    return {**node, "_target_": "llm.models.feed_forward.gated.GatedMLP", "activation": "silu"}


def _pretrained(node: Node) -> Node:
    kept = {name: value for name, value in node.items() if name != "_partial_"}
    return {**kept, "_target_": "llm.checkpoints.pretrained.Pretrained"}


MOVED: dict[str, Callable[[Node], Node]] = {
    "llm.models.feed_forward.gelu.GeluFeedForward": _gelu,
    "llm.models.feed_forward.swiglu.SwiGLUFeedForward": _swiglu,
    "llm.checkpoints.local.load_model": _pretrained,
}
"""What a component that was once named so is now; also in the model's description in a checkpoint."""

MIGRATIONS: dict[int, Callable[[Node], Node]] = {1: renewed}
"""``{n: function}``: brings a config of version n to version n + 1."""
