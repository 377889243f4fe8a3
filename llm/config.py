"""From a command line to checked objects: compose, check, build, and say mistakes in one line.

This is the only module, with the sweeper, that knows Hydra. It imports nothing heavy: composing,
help, Tab completion and a misspelt key must not wait for torch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from llm.types import ConfigError, NotReproduced

REPOSITORY = Path(__file__).resolve().parent.parent
CONF = REPOSITORY / "conf"

ENTRY_KEYS = (
    "name",
    "run_dir",
    "seed",
    "reproduce",
    "allow_drift",
    "restore_code",
    "retry_failed",
    "tracker",
    "allow_targets",
    "config_version",
)
"""Keys every task accepts; the launcher uses them and strips them before the task is called."""

NEVER_REPEATED = frozenset(ENTRY_KEYS) - {"name", "seed", "tracker"} | {"hydra"}
"""What `resume=` does not take from the command line a run says it had: that is somebody's file, and these
keys decide where things are written and which code is trusted."""

ALLOWED_TARGETS = ("llm.", "torch.nn.", "torch.optim.", "fairscale.optim.", "fairscale.nn.")
"""Prefixes of what a config may call: a saved config is somebody's file, and may not name `os.system`."""

LITERAL_KEYS = frozenset({"prompt", "system"})
PATH_KEYS = frozenset(
    {
        "path",
        "checkpoint",
        "reproduce",
        "resume",
        "run_dir",
        "output",
        "train",
        "validation",
        "artifacts",
    }
)
PLAIN = re.compile(r"[\w./+@-]*\Z", re.ASCII)


# ----------------------------------------------------------------------------- the command line


@dataclass(frozen=True)
class Invocation:
    """What Hydra knows of this job beside its config."""

    choices: Mapping[str, Any]
    overrides: Sequence[str]
    hydra: Mapping[str, Any]
    multirun: bool


def quote(value: str) -> str:
    """`value` as a Hydra-quoted string that composes back to exactly `value`.

    Hydra reads a backslash as an escape only in front of a quote; OmegaConf only in front of ``${``.
    """
    value = escaped(value)
    value = re.sub(r"(\\*)'", lambda m: m[1] * 2 + "\\'", value)
    return "'" + re.sub(r"(\\+)\Z", lambda m: m[1] * 2, value) + "'"


def prepare(arguments: Sequence[str]) -> list[str]:
    """The user's arguments in the form Hydra needs: prompts and paths quoted, flags first, sweeps as such."""
    flags, overrides, takes_value = [], [], False
    for argument in arguments:
        if argument.startswith("-") or takes_value:
            takes_value = argument in {"--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp",
                                       "--package", "-p", "--cfg", "-c", "--info", "-i"}  # fmt: skip
            flags.append(argument)
        else:
            overrides.append(argument)
    chooses_sweep = any(re.match(r"\+?sweeps=(?!null\b)", o) for o in overrides)
    if chooses_sweep and not {"-m", "--multirun"} & set(flags) and _runs(flags):
        flags.append("--multirun")
    sweeping = bool({"-m", "--multirun"} & set(flags))
    # the recorded ones are quoted already, and one trial of a sweep is no sweep
    recorded = _choices_of_resumed(overrides)
    return [*flags, *recorded, *(_quote_where_needed(o, sweeping) for o in overrides)]


def _choices_of_resumed(overrides: Sequence[str]) -> list[str]:
    """What stood on the command line of the run that ``resume=`` alone names, so that its keys are known."""
    given = dict(override.partition("=")[::2] for override in overrides)
    if "resume" not in given or {"task", "experiments", "sweeps"} & set(given):
        return []
    try:
        saved = recorded_overrides(Path(given["resume"]))
    except (OSError, ValueError):
        return []  # no run: the launcher says so
    return [o for o in saved if (key := _key(o)) is not None and key not in given and _is_safe(o)]


def recorded_overrides(run: Path) -> list[str]:
    """What stood on the command line of a run, quoted where Hydra needs it.

    Raises:
        OSError: nothing says so. ValueError: what does cannot be read.
    """
    # No yaml: a prompt may look like an interpolation. `RunDirectory` writes a JSON string a line.
    lines = (run / ".hydra" / "overrides.yaml").read_text(encoding="utf-8").splitlines()
    return [str(json.loads(line[2:])) for line in lines if line.startswith("- ")]


def _key(override: str) -> str | None:
    """The key of an override; None when it is none, as a flag."""
    found = re.match(r"[+~]{0,2}([\w/@.:-]+)(?:=|\Z)", override)
    return found[1] if found and not override.startswith("-") else None


def _is_safe(override: str) -> bool:
    """Whether an override out of a saved file changes no entry key and chooses among our own configs."""
    key, _, value = override.partition("=")
    first = re.split(r"[/@.]", key.lstrip("+~"))[0]
    return first not in NEVER_REPEATED and ("." in key or ".." not in value)


def _runs(flags: Sequence[str]) -> bool:
    asks = (
        "--help",
        "-h",
        "--hydra-help",
        "--cfg",
        "-c",
        "--info",
        "-i",
        "--shell-completion",
        "-sc",
        "--version",
    )
    return not any(flag.split("=")[0] in asks for flag in flags)


def _quote_where_needed(override: str, sweeping: bool) -> str:
    key, equals, value = override.partition("=")
    leaf = key.rpartition(".")[2].lstrip("+")
    if not equals:
        return override
    if leaf in LITERAL_KEYS:
        return f"{key}={quote(value)}"
    if PLAIN.match(value):
        return override
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return f"{key}={quote(value)}"
    if (
        leaf in PATH_KEYS
        and not sweeping
        and (parsed.is_sweep_override() or not isinstance(parsed.value(), str))
    ):
        return f"{key}={quote(value)}"
    return override


def cli(launch: str) -> int:
    """Runs the command line with `launch` ("module:function") as the task runner; returns the exit code.

    0 done; 1 failed while running; 2 the user's mistake; 3 `reproduce=` did not reproduce; 130 Ctrl-C.
    """
    warnings.formatwarning = _one_line
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing and exiting 1
    codes: list[int] = []
    typed = sys.argv[1:]
    sys.argv[1:] = prepare(typed)

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def main(config: DictConfig) -> float | None:
        if not wants_traceback:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        module, _, function = launch.partition(":")
        try:
            result: float | None = getattr(importlib.import_module(module), function)(config, _invocation())
            return result
        except Exception as error:
            codes.append(report(error, wants_traceback, config))
            return None

    try:
        _trust(typed)
        main()
    except KeyboardInterrupt:
        codes.append(130)
    except Exception as error:
        codes.append(report(error, wants_traceback, None))
    return max(codes, default=0)


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> str:
    """A warning as people read it, without the line of code that gave it."""
    return f"warning: {message}\n" if category is RuntimeWarning else f"{category.__name__}: {message}\n"


def _invocation() -> Invocation:
    config = HydraConfig.get()
    container = OmegaConf.to_container(config, resolve=False)
    assert isinstance(container, dict)
    return Invocation(
        choices=dict(config.runtime.choices),
        overrides=[str(o) for o in container["overrides"]["task"]],  # as written, interpolations and all
        hydra={"hydra": container},
        multirun=config.mode is not None and config.mode.name == "MULTIRUN",
    )


@contextlib.contextmanager
def composer() -> Iterator[None]:
    """Hydra made ready to compose: the one of this job, which knows of `--config-dir`, or one of our own."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield


def compose(overrides: Sequence[str] = (), *, are_recorded: bool = False) -> DictConfig:
    """The config that ``python main.py OVERRIDES`` would run, composed but not yet checked or built.

    Args:
        overrides: As typed on a command line.
        are_recorded: They are as a run wrote them down instead: quoted where Hydra needs it.

    Raises:
        ConfigError: an override names no such key or option, or does not parse.
    """
    prepared = list(overrides) if are_recorded else prepare(overrides)
    prepared = [o for o in prepared if not o.startswith("-")]
    try:
        with composer():
            return hydra.compose("config", prepared)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, prepared) from error


# ----------------------------------------------------------------------------- mistakes


def report(error: BaseException, wants_traceback: bool, config: DictConfig | None) -> int:
    """Prints `error` as the contract says and returns its exit code."""
    mistakes = mistakes_in(error)
    if mistakes:
        if wants_traceback:
            import traceback

            traceback.print_exception(error)
        for mistake in mistakes:
            line = str(locate(mistake, config)).strip().replace("\n", "; ")
            print(f"error: {line}", file=sys.stderr)
        return 2
    if isinstance(error, NotReproduced):
        print(f"not reproduced: {error}", file=sys.stderr)
        return 3
    import traceback

    traceback.print_exception(error)
    return 1


def mistakes_in(error: BaseException) -> list[ConfigError]:
    """The user's mistakes behind an exception; none when it is a fault of the program or the machine."""
    if isinstance(error, ExceptionGroup):
        return [mistake for one in error.exceptions for mistake in mistakes_in(one)]
    seen: BaseException | None = error
    while seen is not None:  # Hydra wraps what a constructor raises
        if isinstance(seen, ConfigError):
            return [seen]
        seen = seen.__cause__
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return [explain(error, sys.argv[1:])]
    if "Config group override" in str(error):  # Hydra's bare ValueError for `tokenizer=null`
        return [ConfigError("", "", f"{error}; a group is chosen by the name of one of its options")]
    return []


def locate(mistake: ConfigError, config: DictConfig | None) -> ConfigError:
    """The same mistake under its full config path, found by parameter name and value."""
    if config is None or not mistake.key or OmegaConf.select(config, mistake.key, default=None) is not None:
        return mistake
    for path, value in leaves(config):
        if path.rpartition(".")[2] == mistake.key and str(value) == str(mistake.value):
            return ConfigError(path, mistake.value, mistake.mend)
    return mistake


def leaves(config: DictConfig | ListConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value of a config, and every list, with its dotted path.

    Interpolated containers are not entered twice.
    """
    keys = range(len(config)) if isinstance(config, ListConfig) else list(config)
    for key in keys:
        path = f"{prefix}.{key}" if prefix else str(key)
        if OmegaConf.is_missing(config, key):
            continue
        try:
            value = config[key]
        except OmegaConfBaseException:
            continue
        if isinstance(value, (DictConfig, ListConfig)):
            if OmegaConf.is_interpolation(config, key):
                continue
            if isinstance(value, ListConfig):
                yield path, OmegaConf.to_container(value)
            yield from leaves(value, path)
        else:
            yield path, value


def explain(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Hydra's and OmegaConf's many-line errors as one line with the path, the value and the mend."""
    text = " ".join(str(error).split())
    text = text.partition(" Config search path:")[0]
    if match := re.search(r"Could not find '([^']+)' Available options in '([^']+)': (.*)", text):
        group, _, option = match[1].rpartition("/")
        options = match[3].split()
        return ConfigError(
            group, option, f"no such option{nearest(option, options)}; available: {', '.join(options)}"
        )
    if match := re.search(r"(?:Could not override|Could not delete from config\.?) '?([\w.@/]+)'?", text):
        key = match[1]
        given = next((o.partition("=")[2] for o in overrides if o.lstrip("+~").startswith(key + "=")), "")
        return ConfigError(key, given, _mend_of_unknown(key, given, overrides))
    if match := re.search(r"Error parsing override '(.*?)' (?:missing EQUAL|.*<EOF>)", text):
        return ConfigError("", "", f"{match[1]}: is not an override; write key=value")
    if match := re.search(r"LexerNoViableAltException: (.*?) \^", text):
        return ConfigError("", "", f"{match[1]}: is not an override; write key=value")
    if match := re.search(r"In '([^']+)': Could not find '([^']+)'", text):
        return ConfigError(match[1], match[2], "names a config file that does not exist")
    if match := re.search(r"Could not (?:find|load) '([^']+)'", text):
        group, _, option = match[1].rpartition("/")
        return ConfigError(group, option, "no such option")
    if match := re.search(r"Ambiguous value for argument '([^=]+)=(.*?)' 1\.", text):
        return ConfigError(match[1], match[2], "several values are a sweep: add -m, or write a list as [a,b]")
    if match := re.search(r"Value '(.*?)'.* could not be converted to (\w+).*full_key: ([\w.\[\]]+)", text):
        return ConfigError(match[3], match[1], f"must be {match[2].lower()}")
    key_match = re.search(r"full_key: ([\w.\[\]]+)", text)
    return ConfigError(key_match[1] if key_match else "", "", text)


def _mend_of_unknown(key: str, given: str, overrides: Sequence[str]) -> str:
    """What to type in place of a key that this config does not have."""
    choices, keys = _known(overrides)
    group, _, package = key.partition("@")
    places = [choice for choice in choices if choice.partition("@")[0] == group]
    which = " or ".join(f"{place}={given}" for place in places)
    if which:
        return f"not chosen there; here it is {which}{f', and +{key}={given} adds one' if package else ''}"
    if (CONF / group).is_dir():
        return (
            f"not among the defaults here: +{key}={given} adds it"
            if package
            else "this task has no such group"
        )
    return f"no such key{nearest(key, [*choices, *keys])}"


def _known(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The groups that are chosen in what is composed, as `group` or `group@package`, and all keys."""
    plain = [o for o in overrides if re.match(r"[\w/]+=[\w/]+\Z", o)]
    groups = [o for o in plain if (CONF / o.partition("=")[0]).is_dir()]
    first = [o for o in plain if o.startswith(("task=", "experiments=", "sweeps="))]
    for chosen in (groups, first):  # one of the other choices may be what is wrong
        try:
            with composer():
                config = hydra.compose("config", chosen, return_hydra_config=True)
            break
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
    else:
        return [], []
    choices = [
        choice for choice in reversed(list(config.hydra.runtime.choices)) if not choice.startswith("hydra/")
    ]
    with open_dict(config):
        del config["hydra"]
    paths = dict.fromkeys([*(path for path, _ in leaves(config)), *OmegaConf.missing_keys(config)])
    keys = [".".join(p.split(".")[:n]) for p in paths for n in range(1, p.count(".") + 2)]
    return choices, list(dict.fromkeys(keys))


def nearest(word: str, known: Sequence[str]) -> str:
    """``; did you mean X?`` when something known is close to `word`, else nothing."""
    import difflib

    close = [name for name in known if name.endswith(f".{word}")][:3]  # what is shared by several stages
    close = close or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not close:  # the right leaf under a wrong or missing parent
        leaf = word.rpartition(".")[2]
        close = [k for k in known if k.rpartition(".")[2] == leaf][:1]
    return f"; did you mean {' or '.join(close)}?" if close else ""


# ----------------------------------------------------------------------------- building


def _join(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix and key else prefix or key


_extra_targets: list[str] = []


def allow_targets(prefixes: Sequence[str]) -> None:
    """Lets configs of this process call more: only ever on the user's word, never on a file's."""
    _extra_targets.extend(prefixes)


def _trust(typed: Sequence[str]) -> None:
    """Takes ``allow_targets=[PREFIX]`` from what the user typed and nowhere else: no file can give it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    _extra_targets.clear()
    for argument in typed:
        if argument.lstrip("+").startswith("allow_targets="):
            value = OverridesParser.create().parse_override(argument).value()
            prefixes = value if isinstance(value, list) else [value]
            if not all(isinstance(prefix, str) and prefix for prefix in prefixes):
                mend = "must be a list of prefixes, as [my_package.]"
                raise ConfigError("allow_targets", argument.partition("=")[2], mend)
            allow_targets([str(prefix) for prefix in prefixes])


def allowed_targets() -> tuple[str, ...]:
    """The prefixes a `_target_` may start with."""
    return (*ALLOWED_TARGETS, *_extra_targets)


DIRECTIVES = frozenset({"_target_", "_partial_", "_recursive_"})
"""Keys of a node that speak to `build`, not to the target; they mean what they mean in Hydra."""


def build(config: DictConfig | Mapping[str, Any], **arguments: Any) -> Any:
    """Instantiates a config node and all below it, refusing targets that are not allowed.

    Does what ``hydra.utils.instantiate`` does for these three directives, but takes texts with ``${`` in
    them as they are (a prompt is not an interpolation) and leaves a component's own errors unwrapped.

    Args:
        config: A composed config, whose interpolations are resolved, or plain containers, taken as they are.
        **arguments: Further arguments of its target.

    Raises:
        ConfigError: a target is not allowed, or a component refuses one of its values.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    for path, target in _targets(plain):  # all of them, before the first one is called
        if not str(target).startswith(allowed_targets()):
            raise ConfigError(_join(path, "_target_"), target, refusal())
    return _construct({**plain, **arguments}, "")


def _construct(node: Any, path: str) -> Any:
    if isinstance(node, (list, tuple)):
        return [_construct(one, _join(path, str(index))) for index, one in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    given = {str(key): value for key, value in node.items() if key not in DIRECTIVES}
    if node.get("_recursive_", True):
        given = {key: _construct(value, _join(path, key)) for key, value in given.items()}
    if "_target_" not in node:
        return given
    function = find(node["_target_"])
    if node.get("_partial_", False):
        return functools.partial(function, **given)
    try:
        return function(**given)
    except ConfigError as mistake:
        if path and mistake.key.partition(".")[0] in given:
            raise ConfigError(_join(path, mistake.key), mistake.value, mistake.mend) from None
        raise


def find(target: str) -> Callable[..., Any]:
    """The callable a dotted path names.

    Raises:
        ImportError: no such module. AttributeError: the module has no such name.
    """
    parts = target.split(".")
    for split in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                continue
            raise
        for part in parts[split:]:
            found = getattr(found, part)
        return cast(Callable[..., Any], found)
    raise ImportError(f"no module named {parts[0]!r}")


def escaped(value: Any) -> Any:
    """Plain containers whose texts OmegaConf takes as they are, those with ``${`` in them included."""
    if isinstance(value, Mapping):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [escaped(item) for item in value]
    if isinstance(value, str):  # OmegaConf halves the backslashes in front of an interpolation
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", value)
    return str(value) if isinstance(value, Path) else value


def _targets(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node["_target_"]
        for key, value in node.items():
            yield from _targets(value, _join(path, str(key)))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _targets(value, _join(path, str(index)))


def refusal() -> str:
    """Why a target is refused, and the way out."""
    return (
        f"may not be called from a config; allowed: {', '.join(p + '*' for p in allowed_targets())}; "
        "add allow_targets=[PREFIX] on the command line if you trust it"
    )


# ----------------------------------------------------------------------------- saved configs


def resolved(config: DictConfig) -> dict[str, Any]:
    """The config with every interpolation replaced by its value, as plain containers."""
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
