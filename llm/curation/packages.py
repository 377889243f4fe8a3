"""Where the embedded corpus lies: files of the standard library and of installed packages.

Nothing is imported: paths come from `sysconfig` and `importlib.util.find_spec`, text from the files.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llm.types import ConfigError

STANDARD_LIBRARY = "stdlib"

SKIPPED_FOLDERS = frozenset({
    "test", "tests", "testing", "site-packages", "dist-packages", "__pycache__", "config", "lib-dynload",
    "idlelib", "lib2to3", "turtledemo", "encodings", "distutils", "ensurepip", "pydoc_data", "msilib",
    "tkinter", "f2py", "_pyinstaller",
})  # fmt: skip
"""Tests and tools nobody imports: many bytes, little documentation. Any folder of these names is skipped."""

SKIPPED_PARTS = {
    "torch": frozenset({
        "ao", "fx", "export", "onnx", "package", "quantization", "jit",
        "csrc", "lib", "bin", "share", "include", "contrib",
    }),
    "numpy": frozenset({"core", "doc"}),
}  # fmt: skip
"""Parts of one package left out because parsing them would cost more than their documentation is worth."""

PRIVATE_FOLDERS_READ = frozenset({"numpy/_core"})
"""Folders with an underscore hold internals, except where a package keeps all its public functions there."""


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """One python file: dotted module name, path, size, and whether it is a package's `__init__`."""

    package: str
    name: str
    path: Path
    n_bytes: int
    is_package: bool

    @property
    def group(self) -> str:
        """The unit of the split: a top module of the standard library, else three levels of the package."""
        depth = 1 if self.package == STANDARD_LIBRARY else 3
        return ".".join(self.name.split(".")[:depth])

    def read(self) -> str:
        """The file's text; bytes that are not UTF-8 are replaced, for a few old files are Latin-1."""
        return self.path.read_text(encoding="utf-8", errors="replace")


def package_files(package: str) -> list[ModuleFile]:
    """The python files of an installed package, in the order of their names.

    Raises:
        ConfigError: the package is not installed.
    """
    root = _root(package)
    prefix = [] if package == STANDARD_LIBRARY else [package]
    found = []
    for path, n_bytes in _walk(root, root, package):
        parts = [*prefix, *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        if name and n_bytes:
            found.append(ModuleFile(package, name, path, n_bytes, is_package))
    return sorted(found, key=lambda one: (one.name, str(one.path)))


def version(package: str) -> str:
    """The installed version of a package, or of python for its standard library."""
    if package == STANDARD_LIBRARY:
        return platform.python_version()
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def topics() -> str:
    """Source of pydoc's topics, the language reference that comes with python; empty where left out."""
    path = Path(sysconfig.get_paths()["stdlib"]) / "pydoc_data" / "topics.py"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _root(package: str) -> Path:
    if package == STANDARD_LIBRARY:
        return Path(sysconfig.get_paths()["stdlib"])
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("packages", package, "is not an installed package; leave it out or pip install it")
    return Path(spec.submodule_search_locations[0])


def _walk(folder: Path, root: Path, package: str) -> Iterator[tuple[Path, int]]:
    skipped = SKIPPED_FOLDERS | (SKIPPED_PARTS.get(package, frozenset()) if folder == root else frozenset())
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                relative = f"{package}/{Path(entry.path).relative_to(root).as_posix()}"
                if entry.name in skipped or not entry.name.isidentifier():
                    continue
                if entry.name.startswith("_") and relative not in PRIVATE_FOLDERS_READ:
                    continue
                yield from _walk(Path(entry.path), root, package)
            elif entry.name.endswith(".py") and not entry.name.startswith("test_"):
                yield Path(entry.path), entry.stat().st_size
