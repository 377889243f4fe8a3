"""Hugging Face's ``rope_scaling`` and `llm.models.rope_scaling`, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.checkpoints.families.base import Field, part
from llm.checkpoints.families.rules import Config


def _read(value: Mapping[str, Any] | None, config: Mapping[str, Any]) -> Config | None:
    """Hugging Face's ``rope_scaling`` as one of `llm.models.rope_scaling`.

    Raises:
        KeyError: a kind that is not there.
    """
    kind = (value or {}).get("rope_type", (value or {}).get("type", "default"))
    if value is None or kind == "default":
        return None
    name, keys = _SCALINGS[kind]
    node = part(f"rope_scaling.{name}")
    for ours, theirs in keys.items():
        if value.get(theirs) is not None:
            node[ours] = value[theirs]
    if "original_seq_len" in keys and "original_seq_len" not in node:
        node["original_seq_len"] = config["max_position_embeddings"]
    return node


def _write(node: Config | None, config: Config) -> Config | None:  # noqa: ARG001
    if node is None:
        return None
    name = node["_target_"].rpartition(".")[2]
    kind, (_, keys) = next((k, v) for k, v in _SCALINGS.items() if v[0] == name)
    written: Config = {theirs: node[ours] for ours, theirs in keys.items() if node.get(ours) is not None}
    return {"rope_type": kind, **written}


_ORIGINAL = {"original_seq_len": "original_max_position_embeddings"}
_SCALINGS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "linear": ("linear", {"factor": "factor"}),
    "dynamic": ("ntk", {"factor": "factor", **_ORIGINAL}),
    "llama3": (
        "llama3",
        {
            "factor": "factor",
            "low_frequency_factor": "low_freq_factor",
            "high_frequency_factor": "high_freq_factor",
            **_ORIGINAL,
        },
    ),
    "yarn": (
        "yarn",
        {
            "factor": "factor",
            "beta_fast": "beta_fast",
            "beta_slow": "beta_slow",
            "attention_factor": "attention_factor",
            **_ORIGINAL,
        },
    ),
}

ROPE_SCALING = Field("rope_scaling", _read, _write)
