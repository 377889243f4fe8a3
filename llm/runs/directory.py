"""A run's directory: claiming one, what is written in it, and reading it back.

runs/<name>/<timestamp>-<fingerprint8>/
    config.yaml  .hydra/  provenance.json  metrics.jsonl  result.json  report.html  done.json
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from llm import files
from llm.config import escaped
from llm.types import ConfigError

Status = Literal["running", "done", "failed", "interrupted"]

IMMATERIAL = frozenset(
    {
        "name",
        "run_dir",
        "tracker",
        "reproduce",
        "allow_drift",
        "restore_code",
        "retry_failed",
        "resume",
        "hydra",
        "allow_targets",
        "config_version",
    }
)
"""Top-level keys that say where a run is kept, who watches it and how it starts, never what it computes."""

_LOCK = ".lock"


def fingerprint(config: Mapping[str, Any]) -> str:
    """sha256 of the config's canonical JSON less `IMMATERIAL`: equal for runs that compute the same."""
    return files.digest({key: value for key, value in config.items() if key not in IMMATERIAL})


def to_yaml(config: Mapping[str, Any]) -> str:
    """YAML from which OmegaConf reads exactly `config` again, texts like interpolations included."""
    return OmegaConf.to_yaml(OmegaConf.create(escaped(dict(config))))


class RunDirectory:
    """A directory this process alone writes to, until `release`.

    The claim is a lock on a file, so it ends with the process, however that ends.
    """

    def __init__(self, path: Path, fingerprint: str, lock: int) -> None:
        self.path, self.fingerprint, self._lock = path, fingerprint, lock
        self._before: dict[Path, bytes] | None = None
        self._progress = ""

    @classmethod
    def claim(
        cls,
        config: Mapping[str, Any],
        *,
        name: str = "run",
        run_dir: str | Path | None = None,
        root: str | Path = "runs",
    ) -> RunDirectory:
        """A new, empty directory for a run of `config`.

        Args:
            config: the resolved config; its fingerprint is part of the directory's name.
            name: the folder under `root`; one path part.
            run_dir: exactly this directory instead; it must be absent or empty.
            root: where runs are kept, by default under the current directory.

        Raises:
            ConfigError: `run_dir` holds another run or other files, is being claimed by another process, or
                cannot be made; `name` is not a plain folder name. Nothing on disk is touched then.
        """
        mark = fingerprint(config)
        if run_dir is not None:
            return cls(path := Path(run_dir).absolute(), mark, _claim_exactly(path))
        if not re.fullmatch(r"[\w@+.,-]*[\w@+-][\w@+.,-]*", name):
            mend = re.sub(r"[^\w@+-]+", "-", name).strip("-") or "run"
            raise ConfigError("name", name, f"it names a folder, so no slashes or spaces; for example {mend}")
        while True:
            path = Path(root).absolute() / name / f"{datetime.now():%Y%m%d-%H%M%S}-{mark[:8]}"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir()  # fails when another process made it: this is the claim
            except FileExistsError:
                if path.parent.is_dir():
                    time.sleep(0.1)  # the same run, started in the same second: wait for the next one
                    continue
                raise ConfigError("name", name, f"{path.parent} is a file, not a folder") from None
            except OSError as error:
                raise ConfigError("run_dir", path, f"cannot be made: {error.strerror}") from error
            lock = _lock(path)
            assert lock is not None, "a directory made by this process cannot be locked by another"
            return cls(path, mark, lock)

    @classmethod
    def reopen(cls, path: str | Path, config: Mapping[str, Any], *, key: str = "resume") -> RunDirectory:
        """The directory of an earlier run, to go on writing where it stopped.

        `done.json` is taken away, because the run is no longer whole. A config that differs from the saved
        one is allowed (more steps, say); `write_config` keeps the earlier one beside it.

        Raises:
            ConfigError: `path` is not a run directory, or another process is writing to it.
        """
        record = read(path, key=key)
        lock = _lock(record.directory)
        if lock is None:
            raise ConfigError(key, path, "another process is running this run; wait for it or stop it")
        reopened = cls(record.directory, fingerprint(config), lock)
        reopened._before = {file: file.read_bytes() for file in reopened._records()}
        reopened._progress = reopened._state()
        (record.directory / "done.json").unlink(missing_ok=True)
        return reopened

    def _records(self) -> list[Path]:
        """The small files that say what the run is and how it stands."""
        own = [p for p in self.path.iterdir() if p.suffix in (".json", ".yaml") and p.is_file()]
        return [*own, *(self.path / ".hydra").glob("*.yaml")]

    def _state(self) -> str:
        """Changes when the run gets any further."""
        metrics, last = self.path / "metrics.jsonl", self.path / "checkpoints" / "last"
        size = metrics.stat().st_size if metrics.is_file() else 0
        return f"{size} {last.readlink() if last.is_symlink() else None}"

    def give_back(self) -> bool:
        """Leaves a reopened run that got no further as it was found; whether it did.

        For a resume that is refused once it is under way: a checkpoint of another architecture, say.
        """
        if self._before is None or self._state() != self._progress:
            return False
        for file in set(self._records()) - set(self._before):
            file.unlink()
        done = self.path / "done.json"
        for file, content in sorted(self._before.items(), key=lambda item: item[0] == done):
            files.write_bytes(file, content)
        return True

    def write_config(
        self,
        config: Mapping[str, Any],
        *,
        hydra: Mapping[str, Any] | None = None,
        overrides: Sequence[str] = (),
        composed: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes `config.yaml` and Hydra's own record.

        Args:
            config: the resolved config.
            hydra: Hydra's part of it, for `.hydra/hydra.yaml`.
            overrides: what stood on the command line.
            composed: the config before its interpolations were resolved; `config` when None.
        """
        text, path = to_yaml(config), self.path / "config.yaml"
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            path.rename(_free(self.path, "config.before-resume-{}.yaml"))
        files.write_text(path, text)
        unresolved = OmegaConf.to_yaml(OmegaConf.create(dict(composed))) if composed is not None else text
        files.write_text(self.path / ".hydra" / "config.yaml", unresolved)
        files.write_text(self.path / ".hydra" / "hydra.yaml", to_yaml({"hydra": dict(hydra or {})}))
        files.write_text(
            self.path / ".hydra" / "overrides.yaml",
            "".join(f"- {json.dumps(o)}\n" for o in overrides) or "[]\n",
        )

    def write_result(self, status: Status, **facts: object) -> None:
        """Writes `result.json`."""
        result = {"status": status, "fingerprint": self.fingerprint, **facts}
        files.write_json(self.path / "result.json", result)

    def mark_done(self) -> None:
        """Writes `done.json`: after everything else, for it says that the run is whole."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        files.write_json(self.path / "done.json", {"fingerprint": self.fingerprint, "finished": now})
        files.sync(self.path)

    def release(self) -> None:
        """Gives up the claim; calling it again does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _lock(path: Path) -> int | None:
    """An open, locked file in `path`, or None when another process holds it."""
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _claim_exactly(path: Path) -> int:
    try:
        path.mkdir(parents=True, exist_ok=True)
        _refuse_content(path)  # before the lock file is made: nothing in a foreign directory is touched
        lock = _lock(path)
        if lock is None:
            raise ConfigError("run_dir", path, "another process is claiming it; name another directory")
        try:
            _refuse_content(path)  # again, now that nobody else can write
        except ConfigError:
            os.close(lock)
            raise
    except OSError as error:
        reason = "a file, not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError("run_dir", path, f"cannot be used: {reason}; name another directory") from error
    return lock


def _refuse_content(path: Path) -> None:
    held = {entry.name for entry in path.iterdir()} - {_LOCK}
    if not held:
        return
    if held & {"config.yaml", "result.json", "done.json"}:
        mend = "already holds a run; name another directory, or go on with that run by resume="
    else:
        mend = f"is not empty (it holds {sorted(held)[0]}); name a new or an empty directory"
    raise ConfigError("run_dir", path, mend)


def _free(folder: Path, pattern: str) -> Path:
    return next(p for n in range(1, 10**6) if not (p := folder / pattern.format(n)).exists())


def is_done(path: Path) -> bool:
    """Whether `path` holds a whole run."""
    return (path / "done.json").is_file()


@dataclass(frozen=True)
class RunRecord:
    """What a run left on disk. Parts that a run has not written yet are empty."""

    directory: Path
    config: dict[str, Any]
    result: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def status(self) -> str:
        """``done``, ``failed``, ``interrupted``, or ``running`` (which a killed run also says)."""
        return str(self.result.get("status", "running"))

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, in order."""
        return read_metrics(self.directory / "metrics.jsonl")


def read(path: str | Path, *, key: str = "run_dir") -> RunRecord:
    """Reads a run directory.

    Raises:
        ConfigError: `path` is not a run directory, or its config or result cannot be read; `key` is the
            name of the config key that named it.
    """
    folder = Path(path)
    if not (folder / "config.yaml").is_file():
        raise ConfigError(key, path, _why_not_a_run(folder))
    try:
        config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=True)
    except Exception as error:  # the disk's, YAML's and OmegaConf's errors share no closer base
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(key, path, f"its config.yaml cannot be read: {first}") from error
    if not isinstance(config, dict):
        raise ConfigError(key, path, "its config.yaml is not a mapping of keys to values")
    parts: dict[str, dict[str, Any]] = {"result.json": {}, "provenance.json": {}}
    for name in parts:
        if (folder / name).is_file():
            try:
                parts[name] = dict(files.read_json(folder / name))
            except (OSError, ValueError, TypeError) as error:
                raise ConfigError(key, path, f"its {name} cannot be read: {error}") from error
    named = {str(name): value for name, value in config.items()}
    return RunRecord(folder.absolute(), named, parts["result.json"], parts["provenance.json"])


def _why_not_a_run(folder: Path) -> str:
    if not folder.exists():
        return "there is no such directory; runs are under runs/<name>/<timestamp>-<fingerprint>"
    if not folder.is_dir():
        return "a run is a directory, and this is a file"
    runs = sorted((p.parent for p in folder.glob("*/config.yaml")), key=lambda p: p.name)
    runs = runs or sorted((p.parent for p in folder.glob("*/*/config.yaml")), key=lambda p: p.name)
    if runs:
        return f"it holds runs and is none itself; the newest is {runs[-1]}"
    return "not a run directory: it has no config.yaml"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a `metrics.jsonl`; a line torn by a kill is left out, a missing file is empty."""
    if not path.is_file():
        return []
    return [record for _, record in parse_lines(path.read_text(encoding="utf-8").splitlines(keepends=True))]


def parse_lines(lines: Iterable[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each whole line of a `metrics.jsonl` with its record."""
    for line in lines:
        if not line.endswith("\n"):
            continue
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield line, {name: files.number(value) for name, value in record.items()}


def flat(values: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, its names joined: a result's metrics per stage, say."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, separator, f"{prefix}{name}{separator}")
        else:
            found[prefix + name] = value
    return found
