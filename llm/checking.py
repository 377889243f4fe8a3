"""Does a config fit the code it names? Every `_target_` against its signature, all mistakes in one pass."""

from __future__ import annotations

import builtins
import importlib
import inspect
import json
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pydantic
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llm.config import CONF, DIRECTIVES, ENTRY_KEYS, allowed_targets, find, nearest, refusal
from llm.types import ConfigError

Parameters = Mapping[str, inspect.Parameter]


def check(config: DictConfig) -> None:
    """Holds every `_target_` of a composed config against its signature, before anything is built.

    Checks that the target is allowed and exists, that its parameters have these names and types, that
    required ones are there, and the target's own cross-field rules (`check_arguments`).

    Args:
        config: A composed config; its entry keys are the launcher's, not the task's.

    Raises:
        ExceptionGroup: of `ConfigError`, one for each mistake, all of them.
    """
    found = [ConfigError(key, "???", "is required: give it a value") for key in missing(config)]
    allowed = allowed_targets()
    for path, node in nodes(config):
        target = node.get("_target_")
        if not isinstance(target, str) or not target.startswith(allowed):
            found.append(ConfigError(_join(path, "_target_"), target, refusal()))
            continue
        try:
            function = find(target)
        except (ImportError, AttributeError) as error:
            found.append(ConfigError(_join(path, "_target_"), target, f"cannot be imported ({error})"))
            continue
        found += _node_mistakes(path, node, function)
    if found:
        raise ExceptionGroup("the config is wrong", found)


def missing(config: DictConfig | ListConfig, path: str = "") -> Iterator[str]:
    """Dotted paths of the values that are still ``???``, each where it is written."""
    keys: Sequence[Any] = range(len(config)) if isinstance(config, ListConfig) else list(config.keys())
    for key in keys:
        where = _join(path, str(key))
        if OmegaConf.is_missing(config, key):
            yield where
        elif not OmegaConf.is_interpolation(config, key) and OmegaConf.is_config(config[key]):
            yield from missing(config[key], where)


def nodes(config: DictConfig | ListConfig, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Every dict with a `_target_`, outermost first, each where it is written, not where it is used."""
    if isinstance(config, DictConfig) and "_target_" in config:
        yield path, config
    keys: Sequence[Any] = range(len(config)) if isinstance(config, ListConfig) else list(config)
    for key in keys:
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        child = config[key]
        if isinstance(child, (DictConfig, ListConfig)):
            yield from nodes(child, _join(path, str(key)))


def _node_mistakes(path: str, node: DictConfig, function: Callable[..., Any]) -> list[ConfigError]:
    found: list[ConfigError] = []
    supplied = ("run",) if node["_target_"].startswith("llm.tasks.") else ()  # the launcher's own argument
    parameters: Parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    values: dict[str, Any] = {}
    # a key whose value is missing is "not in" a DictConfig, but among its keys()
    keys = [str(key) for key in node.keys() if path or key not in ENTRY_KEYS]  # noqa: SIM118
    for key in keys:
        if key in DIRECTIVES or OmegaConf.is_missing(node, key):
            continue
        where = _join(path, key)
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            reason = " ".join(str(error).split()).partition(" full_key")[0]
            written = dict(OmegaConf.to_container(node, resolve=False))  # type: ignore[arg-type]
            found.append(ConfigError(where, written[key], reason))
            continue
        if key not in parameters or parameters[key].kind is inspect.Parameter.VAR_KEYWORD:
            if not takes_any:
                found.append(ConfigError(where, _brief(value), f"no such key{_close(key, path, parameters)}"))
            continue
        values[key] = value
        if mistake := _type_mistake(where, value, function, parameters[key]):
            found.append(mistake)
    if not node.get("_partial_", False):
        found += [
            ConfigError(_join(path, name), "???", "is required: give it a value")
            for name, p in parameters.items()
            if p.default is p.empty
            and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            and name not in keys
            and name not in supplied
        ]
    if not found:
        found += _rule_mistakes(path, function, values)
    return found


def _close(key: str, path: str, parameters: Parameters) -> str:
    return nearest(_join(path, key), [_join(path, name) for name in parameters])


def _rule_mistakes(path: str, function: Callable[..., Any], values: Mapping[str, Any]) -> list[ConfigError]:
    """What the target's own `check_arguments` says of values that belong together."""
    rule = getattr(function, "check_arguments", None)
    if rule is None:
        return []
    wanted = {n: p.default for n, p in inspect.signature(rule).parameters.items()}
    defaults = {n: p.default for n, p in inspect.signature(function).parameters.items()}
    given = {name: values.get(name, defaults.get(name, default)) for name, default in wanted.items()}
    if inspect.Parameter.empty in given.values():
        return []  # a value only known at run time; the constructor checks again
    try:
        rule(**given)
    except ConfigError as mistake:
        return [ConfigError(_join(path, mistake.key), mistake.value, mistake.mend)]
    return []


def _type_mistake(
    where: str, value: Any, function: Callable[..., Any], parameter: inspect.Parameter
) -> ConfigError | None:
    if _holds_components(value):
        return None
    annotation = annotation_of(function, parameter)
    if annotation is None:
        return None
    plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return ConfigError(where, plain, "must be a finite number")
    try:
        adapter = pydantic.TypeAdapter(annotation)
    except pydantic.errors.PydanticUserError:
        if plain is None and type(None) in typing.get_args(annotation):
            return None
        if plain is None or isinstance(plain, (str, int, float)):
            return ConfigError(where, _brief(plain), f"must be a component{_how_to_choose(where, plain)}")
        return None  # a Protocol or a class: what is given is built from a `_target_`, checked on its own
    try:
        # JSON is strict about numbers and text, yet lets a list be a tuple and text be a path
        adapter.validate_json(json.dumps(plain), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        inner = ".".join(
            str(part) for part in first["loc"] if isinstance(part, (str, int)) and plain is not value
        )
        message = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
        if first["type"] == "callable_type":
            message = f"must be a component{_how_to_choose(where, plain)}"
        return ConfigError(_join(where, inner) if isinstance(plain, (dict, list)) and inner else where,
                           _brief(plain), message)  # fmt: skip
    return None


def _how_to_choose(where: str, option: Any) -> str:
    """`stages.sft.optimizer=adamw` sets the key; the group is chosen with an @ before it."""
    group = where.rpartition(".")[2]
    if isinstance(option, str) and (CONF / group).is_dir():
        return f": choose it by {group}@{where}={option}"
    return ": a config with a _target_"


def annotation_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """A parameter's type; None when there is none or its names exist for type checkers only."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return None
    if isinstance(annotation, str):
        owner = inspect.unwrap(
            getattr(function, "__init__", function) if inspect.isclass(function) else function
        )
        scope = getattr(owner, "__globals__", None) or vars(importlib.import_module(function.__module__))
        try:
            annotation = eval(annotation, {**vars(builtins), **scope})  # our own source, not the user's
        except (NameError, AttributeError, TypeError):
            return None
    return annotation


def _holds_components(value: Any) -> bool:
    if isinstance(value, DictConfig):
        return "_target_" in value or any(_holds_components(value[key]) for key in value)
    return isinstance(value, ListConfig) and any(_holds_components(one) for one in value)


def _brief(value: Any) -> Any:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    text = str(value)
    return value if len(text) <= 60 else text[:57] + "..."


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key
