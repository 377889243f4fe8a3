"""What an architecture of Hugging Face's is in our words, and reading and writing its ``config.json``.

A family is a base config of ours, the fields of it that are keys of ``config.json``, and rules that rename
our tensors. Reading and writing use the same lines in both directions. A new family is one module here with
a ``FAMILY``; `llm.checkpoints.families.catalogue` finds it.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm.checkpoints.families.rules import Config, Rule
from llm.config import find


@dataclass(frozen=True)
class Field:
    """A key of ``config.json`` whose value is said in another way than ours.

    Attributes:
        key: theirs.
        read: from their value and their whole config to our value. Raises KeyError for one that is unknown.
        write: from our value and our whole config to theirs.
    """

    key: str
    read: Callable[[Any, Mapping[str, Any]], Any]
    write: Callable[[Any, Config], Any]


def _as_it_is(key: str) -> Field:
    return Field(key, lambda value, _: value, lambda value, _: value)


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        model_type: theirs, as in ``config.json``.
        architecture: their class.
        base: our config with everything that is not a field.
        fields: where a value stands in ours, and its key in theirs.
        constants: keys of theirs that must have these values; of families with one `model_type` they tell
            which it is.
        rules: for the tensors.
        fallback: values of theirs where ``config.json`` says nothing.
        optional_prefix: of their names, which some files leave out.
        positions: their key of the longest sequence.
        longest: the longest sequence where their config has no such key.
        head_decides: whether embeddings are tied is read off the file: a head of its own is in it, or none.
    """

    model_type: str
    architecture: str
    base: Config
    fields: Mapping[str, str | Field]
    rules: Sequence[Rule]
    constants: Mapping[str, Any] = field(default_factory=dict)
    fallback: Mapping[str, Any] = field(default_factory=dict)
    optional_prefix: str = ""
    positions: str = "max_position_embeddings"
    longest: int = 512
    head_decides: bool = False

    def all_fields(self) -> Iterator[tuple[str, Field]]:
        """Our paths, each with its field."""
        for path, one in self.fields.items():
            yield path, one if isinstance(one, Field) else _as_it_is(one)

    def rule(self, ours: str) -> tuple[Rule, list[str]]:
        """The rule for a tensor of ours, and their names of it."""
        for rule in self.rules:
            if names := rule.names(ours):
                return rule, names
        raise AssertionError(f"{self.model_type} has no rule for {ours}")


def part(target: str, **arguments: Any) -> Config:
    """The config node of a part of `llm.models`."""
    return {"_target_": f"llm.models.{target}", "_partial_": True, **arguments}


def decoder(attention: Config, feed_forward: Config, position: Config, norm: Config, **more: Any) -> Config:
    """The config of a `Decoder`, without biases and with a head of its own unless said otherwise."""
    return part(
        "decoder.Decoder",
        attention=attention,
        feed_forward=feed_forward,
        position=position,
        norm=norm,
        **{"bias": False, "tie_embeddings": False, **more},
    )


def read_config(family: Family, theirs: Mapping[str, Any]) -> Config:
    """Our model config for a ``config.json``. Values that `family` does not know are not looked at."""
    rope = dict(theirs.get("rope_parameters") or {})
    known = {**family.fallback, "rope_scaling": rope or None, **rope, **theirs}
    config = copy.deepcopy(family.base)
    for path, one in family.all_fields():
        if one.key in known:
            node = config
            *parents, leaf = path.split(".")
            for name in parents:
                node = node[name]
            node[leaf] = one.read(known[one.key], known)
    return config


def write_config(family: Family, ours: Config, *, vocab_size: int, max_seq_len: int) -> Config:
    """The ``config.json`` of our model config, which `family` fits."""
    complete = with_defaults(ours)
    written: Config = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "vocab_size": vocab_size,
        family.positions: max_seq_len,
        **family.constants,
    }
    for path, one in family.all_fields():
        value: Any = complete
        for name in path.split("."):
            value = value[name]
        written[one.key] = one.write(value, complete)
    return written


def fits(family: Family, ours: Config) -> list[str]:
    """Paths of our config that keep it from being one of `family`; empty when it is one."""
    config, base = dict(_flat(with_defaults(ours))), dict(_flat(with_defaults(family.base)))
    # What a model starts from and how long it may read is no matter of its architecture.
    loose = (*family.fields, "dropout", "max_seq_len", "vocab_size", "init_std", "initialisation")

    def is_loose(path: str) -> bool:
        return any(path == one or path.startswith(f"{one}.") for one in loose)

    return [
        path
        for path in dict.fromkeys([*config, *base])
        if not is_loose(path) and config.get(path, "absent") != base.get(path, "absent")
    ]


def with_defaults(node: Any) -> Any:
    """A config in which every argument that is left to its default is written out."""
    if not isinstance(node, Mapping):
        return node
    complete = {name: with_defaults(value) for name, value in node.items()}
    if "_target_" in node:
        for name, parameter in inspect.signature(find(node["_target_"])).parameters.items():
            if parameter.default is not parameter.empty:
                complete.setdefault(name, parameter.default)
    return complete


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _flat(value, f"{path}.{name}".lstrip("."))
    else:
        yield path, node
