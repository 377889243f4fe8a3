"""What lifecycle stages leave behind, kept under the hash of everything it depends on.

artifacts/<stage>/<key>/            published: never written to again
artifacts/<stage>/.<key>.partial/   being built, or left by a kill for its stage to go on in
artifacts/<stage>/.<key>.lock       held while it is being built
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from llm import files
from llm.runs.directory import IMMATERIAL
from llm.types import ConfigError

MANIFEST = "manifest.json"


def key(
    stage: str,
    version: int | str,
    config: Mapping[str, Any],
    upstream: Sequence[str] | Mapping[str, str] = (),
    fingerprints: Mapping[str, str] | None = None,
    *,
    ignore: Iterable[str] = IMMATERIAL,
) -> str:
    """What a stage's output is kept under: 20 hexadecimal digits.

    Args:
        stage: the stage's name.
        version: of the stage's code; raise it when the same config would give another output.
        config: the stage's resolved config.
        upstream: keys of the artifacts it reads; in a sequence their order counts.
        fingerprints: digests of the data it reads from outside.
        ignore: top-level keys of `config` that cannot matter.
    """
    left_out = set(ignore)
    material = {name: value for name, value in config.items() if name not in left_out}
    content = [stage, version, material, upstream, fingerprints or {}]
    return files.digest(content)[:20]


class ArtifactStore:
    """A folder of artifacts, safe for several processes at a time."""

    def __init__(self, root: str | Path = "artifacts", say: Callable[[str], None] | None = None) -> None:
        """Args:
        root: the folder; made when first written to.
        say: told in one line when an artifact is damaged or another process is building it.
        """
        self.root, self._say = Path(root).absolute(), say or (lambda _: None)

    def path(self, stage: str, key: str) -> Path:
        """Where the artifact lies once published."""
        assert re.fullmatch(r"[\w-]+", stage), f"not a stage's name: {stage!r}"
        assert re.fullmatch(r"\w+", key), f"not an artifact's key: {key!r}"
        return self.root / stage / key

    def find(self, stage: str, key: str, *, thorough: bool = False) -> Path | None:
        """The published artifact, or None when it has to be built.

        A damaged one is renamed to ``<key>.damaged-<n>``, so that it is built again, and said in one line.

        Args:
            stage: the stage's name.
            key: see `key`.
            thorough: compare every file's sha256 as well as its size.
        """
        path = self.path(stage, key)
        if not path.is_dir():
            return None
        fault = self._fault(path, key, thorough)
        if fault is None:
            return path
        aside = next(p for n in range(1, 10**6) if not (p := path.with_name(f"{key}.damaged-{n}")).exists())
        try:
            path.rename(aside)
        except FileNotFoundError:  # another process was faster
            return None
        self._say(
            f"artifact {stage}/{key} is damaged ({fault}): set aside as {aside.name}, building it again"
        )
        return None

    def _fault(self, path: Path, key: str, thorough: bool) -> str | None:
        """What is wrong with an artifact, or None."""
        try:
            manifest = files.read_json(path / MANIFEST)
            listed: dict[str, dict[str, Any]] = dict(manifest["files"])
        except FileNotFoundError:
            return f"it has no {MANIFEST}"
        except (OSError, ValueError, TypeError, KeyError):
            return f"its {MANIFEST} cannot be read"
        if manifest.get("key") != key:
            return f"its {MANIFEST} is of another key"
        for name, entry in listed.items():
            file = path / name
            if "link" in entry:
                if not file.is_symlink() or str(file.readlink()) != entry["link"]:
                    return f"{name} is not the link it was"
            elif not file.is_file():
                return f"{name} is missing"
            elif file.stat().st_size != entry["bytes"]:
                return f"{name} has {file.stat().st_size} bytes, not {entry['bytes']}"
            elif thorough and files.sha256_file(file) != entry["sha256"]:
                return f"the bytes of {name} are not those it was published with"
        return None

    def partial(self, stage: str, key: str) -> Path:
        """The directory the artifact is built in; it may not exist."""
        path = self.path(stage, key)
        return path.with_name(f".{key}.partial")

    def open(self, stage: str, key: str) -> Path:
        """The directory to build in, with whatever an interrupted build left there."""
        path = self.partial(stage, key)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, stage: str, key: str, manifest: Mapping[str, Any] | None = None) -> Path:
        """Makes what was built in `open`'s directory the artifact, in one rename.

        Args:
            stage: the stage's name.
            key: see `key`.
            manifest: facts to keep beside the list of files: config, upstream, version, summary.
        """
        partial, path = self.partial(stage, key), self.path(stage, key)
        assert partial.is_dir(), f"{stage}/{key} was not opened"
        assert not path.exists(), f"{stage}/{key} is published already"
        (partial / MANIFEST).unlink(missing_ok=True)  # of a build killed between manifest and rename
        content = {
            "stage": stage,
            "key": key,
            "created": datetime.now().astimezone().isoformat(timespec="seconds"),
            **(manifest or {}),
            "files": _listing(partial),
        }
        files.write_json(partial / MANIFEST, content)
        partial.rename(path)
        files.sync(path.parent)
        return path

    @contextmanager
    def building(self, stage: str, key: str) -> Iterator[Path | None]:
        """Holds the artifact's lock: of two processes that want the same one, the second waits.

        Yields the published artifact when it is there (the first process built it meanwhile), else None: then
        build in `open`'s directory and `publish`.
        """
        path = self.path(stage, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Never removed: a lock file that is deleted while a third process opens it locks nobody out.
            descriptor = os.open(path.with_name(f".{key}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(
                "artifacts", self.root, f"cannot be written to: {error.strerror}; run from another directory"
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say(f"another process is building {stage}/{key}; waiting for it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self.find(stage, key)
        finally:
            os.close(descriptor)


def _listing(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file below `folder` with its size and sha256, links with their target, on disk for good."""
    listed: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            listed[name] = {"link": str(path.readlink())}
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            listed[name] = {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
        elif path.is_dir():
            files.sync(path)
    return listed
