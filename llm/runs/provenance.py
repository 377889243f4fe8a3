"""Where a run came from: the code, the packages and the machine, so that it can be rebuilt and compared.

Everything here works outside a git checkout, without git, and without a GPU; what cannot be told is None,
with a word on why.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import llm
from llm.types import ConfigError

CHECKOUT = Path(llm.__file__).resolve().parent.parent
"""The folder that holds `llm/`: the project's checkout, wherever the command is run from."""

DISTRIBUTION = "llm-experiments"

_SOURCES = {".py", ".pyi", ".yaml", ".yml", ".toml", ".html", ".css", ".js", ".json", ".sh", ".md", ".txt"}
_SMALL_BYTES, _ALL_BYTES = 100_000, 2_000_000
"""An untracked source is kept whole up to the first, all of them together up to the second."""

_ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTHONHASHSEED",
    "ATEN_CPU_CAPABILITY",
    "WORLD_SIZE",
)
"""The environment variables that can change a number. Never the whole environment: it holds secrets."""


def collect(checkout: Path = CHECKOUT) -> dict[str, Any]:
    """Everything known at the start of a run; `data`, `energy` and `ended_at` are added at its end."""
    return {
        "started_at": now(),
        "ended_at": None,
        "argv": sys.argv,
        "working_directory": str(Path.cwd()),
        "python": platform.python_version(),
        "python_executable": sys.executable,
        "platform": platform.platform(),
        "hostname": platform.node(),
        "git": git_state(checkout),
        "packages": dict(packages()),
        "dependencies": sorted(dependencies()),
        **machine(),
        "seeds": {},
        "data": {},
        "energy": None,
    }


def now() -> str:
    """The time, to the second, with the place's offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def git_state(checkout: Path) -> dict[str, Any]:
    """The commit, the uncommitted changes of tracked files as a patch, and the untracked sources.

    `untracked` maps a path to ``{"bytes", "sha256", "text"}``, where `text` is None for what is too large or
    not text. Outside a checkout `commit` is None and `reason` says why.
    """
    nothing: dict[str, Any] = {"commit": None, "diff": "", "untracked": {}}
    top = _git(checkout, "rev-parse", "--show-toplevel")
    if top is None:
        return {**nothing, "reason": f"{checkout} is not a git checkout, or git is not installed"}
    # An installed package inside somebody else's repository (a venv in a checkout) is not that repository's.
    is_own = Path(top.strip()).resolve() == checkout.resolve()
    if not is_own and not _git(checkout, "ls-files", "llm/__init__.py"):
        return {**nothing, "reason": f"{checkout} is not itself tracked by the git repository around it"}
    commit = (_git(checkout, "rev-parse", "--verify", "--quiet", "HEAD") or "").strip() or None
    empty_tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name for a commit without files
    diff = _git(
        checkout,
        *("-c", "core.quotepath=off", "diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv"),
        *("--src-prefix=a/", "--dst-prefix=b/", "--relative", commit or empty_tree),
    )
    # Without a commit every file is new: the index counts as tracked, what is not in it as untracked.
    listing = _git(checkout, "ls-files", "--others", "--exclude-standard", "-z") or ""
    return {"commit": commit, "diff": diff or "", "untracked": _untracked(checkout, listing), "reason": None}


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments],
            capture_output=True,
            timeout=60,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "surrogateescape")


def _untracked(checkout: Path, listing: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    room = _ALL_BYTES
    for name in sorted(filter(None, listing.split("\0"))):
        path = checkout / name
        if path.suffix not in _SOURCES or name.startswith(("runs/", "artifacts/", "outputs/", "multirun/")):
            continue
        try:
            content = path.read_bytes()
        except OSError:  # a dangling link, or gone since it was listed
            continue
        text = None
        if len(content) <= min(_SMALL_BYTES, room):
            try:
                text = content.decode("utf-8")
                room -= len(content)
            except UnicodeDecodeError:
                pass
        found[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "text": text}
    return found


@cache
def packages() -> dict[str, str]:
    """Name and version of every installed distribution."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        try:
            name, version = distribution.metadata["Name"], str(distribution.metadata["Version"])
        except Exception:  # a half-removed package has a folder and no metadata
            continue
        if name:
            # The first of a name is the one an import finds.
            found.setdefault(_normal(name), version)
    return dict(sorted(found.items()))


@cache
def dependencies(root: str = DISTRIBUTION) -> set[str]:
    """The distributions the project needs, and what those need, without extras; empty when not installed."""
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        name = _normal(waiting.pop())
        if name in seen:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        seen.add(name)
        for need in needs:
            found = re.match(r"[A-Za-z0-9._-]+", need)
            if found and "extra ==" not in need:
                waiting.append(found[0])
    return seen - {_normal(root)}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def machine() -> dict[str, Any]:
    """Device, threads and the torch flags that can change the last bits of a number."""
    import torch  # the only part that needs it: reading an old record does not

    from llm import runtime

    device = runtime.device()
    facts: dict[str, Any] = {"type": device.type, "cpu": _cpu_name(), "cpu_count": os.cpu_count()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "count": torch.cuda.device_count(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return {
        "device": facts,
        "world_size": runtime.world_size(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "flags": {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "default_dtype": str(torch.get_default_dtype()),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        },
        "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def drift(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What differs between the code of a saved run and the code now, one readable line each.

    Compared are the commit, the uncommitted changes file by file, the untracked sources, Python and the
    versions of the packages the project depends on (a newer linter is no drift).
    """
    before, after = _part(saved, "git"), _part(current, "git")
    lines = []
    if before.get("commit") != after.get("commit"):
        lines.append(f"commit: {_short(before.get('commit'))} then, {_short(after.get('commit'))} now")
    lines += _changes(
        _by_file(str(before.get("diff") or "")),
        _by_file(str(after.get("diff") or "")),
        lambda file, then, now: f"uncommitted changes of {file}: {_presence(then, now)}",
    )
    lines += _changes(
        {name: entry["sha256"] for name, entry in _part(before, "untracked").items()},
        {name: entry["sha256"] for name, entry in _part(after, "untracked").items()},
        lambda file, then, now: f"untracked source {file}: {_presence(then, now)}",
    )
    if saved.get("python") != current.get("python"):
        lines.append(f"python: {saved.get('python')} then, {current.get('python')} now")
    old, new = _part(saved, "packages"), _part(current, "packages")
    matter = {*saved.get("dependencies", ()), *current.get("dependencies", ())} or {*old, *new}
    return lines + _changes(
        {name: version for name, version in old.items() if name in matter},
        {name: version for name, version in new.items() if name in matter},
        lambda name, then, now: f"package {name}: {then or 'absent'} then, {now or 'absent'} now",
    )


def surroundings(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What differs between the machines: no drift of code, yet it can change the last bits of a number."""
    lines = []
    for key in ("platform", "device", "world_size", "threads", "interop_threads", "flags", "environment"):
        old, new = saved.get(key), current.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += _changes(dict(old), dict(new), lambda n, a, b, k=key: f"{k} {n}: {a} then, {b} now")
        elif old != new:
            lines.append(f"{key}: {old} then, {new} now")
    return lines


def _part(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = record.get(key)
    return dict(value) if isinstance(value, Mapping) else {}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], line: Any) -> list[str]:
    names = sorted({*old, *new})
    return [line(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _presence(then: object, now: object) -> str:
    return "other then than now" if then and now else ("there then, gone now" if then else "new since")


def _short(commit: object) -> str:
    return str(commit)[:10] if commit else "none"


def _by_file(diff: str) -> dict[str, str]:
    """A patch cut into its files."""
    parts = re.split(r"^diff --git ", diff, flags=re.MULTILINE)[1:]
    return {re.sub(r"^a/(.*) b/\1$", r"\1", part.split("\n", 1)[0]): part for part in parts}


def restore_code(saved: Mapping[str, Any], destination: Path, checkout: Path = CHECKOUT) -> None:
    """Writes the code of a saved run into the new directory `destination`; the checkout stays as it is.

    The commit's files, then the run's uncommitted changes, then its untracked sources.

    Raises:
        ConfigError: `destination` is not empty, or the run's commit is not in this checkout's history, or a
            source was too large to be kept.
    """
    git = _part(saved, "git")
    if destination.exists() and any(destination.iterdir()):
        raise ConfigError("restore_code", destination, "is not empty; name a new directory")
    commit = git.get("commit")
    if commit and _git(checkout, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise ConfigError("restore_code", _short(commit), f"is not a commit of {checkout}; fetch it first")
    if not commit and not git.get("untracked"):
        raise ConfigError("restore_code", destination, f"the run kept no code: {git.get('reason')}")
    lost = [name for name, entry in _part(git, "untracked").items() if entry["text"] is None]
    if lost:
        raise ConfigError(
            "restore_code", lost[0], "was untracked and too large to be kept; put it back yourself"
        )
    destination.mkdir(parents=True, exist_ok=True)
    if commit:
        archive = subprocess.run(
            ["git", "-C", str(checkout), "archive", str(commit)], capture_output=True, check=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", str(destination)], input=archive, check=True)
    if git.get("diff"):
        patch = str(git["diff"]).encode("utf-8", "surrogateescape")
        # Outside any repository `git apply` takes paths as they stand; the ceiling keeps it there.
        subprocess.run(
            ["git", "apply", "--whitespace=nowarn", "-"],
            input=patch,
            cwd=destination,
            check=True,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(destination.resolve().parent)},
        )
    for name, entry in _part(git, "untracked").items():
        path = destination / name
        if not path.resolve().is_relative_to(destination.resolve()):
            raise ConfigError(
                "restore_code", name, "lies outside the checkout; the saved run was tampered with"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry["text"], encoding="utf-8", newline="")
