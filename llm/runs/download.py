"""A file from the network, fetched once, checked against its sha256 and kept in a cache."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from llm import files, runtime
from llm.runs.progress import Display, Progress
from llm.types import ConfigError

BLOCK_BYTES = 1 << 16
TIMEOUT_SECONDS = 30.0


def fetch(url: str, sha256: str, cache: Path) -> Path:
    """The file at `url`, from `cache` when it is there and whole, for processes that work together.

    Only rank 0 downloads; every process must call this, since they wait for each other.

    Raises:
        ConfigError: as `obtain`.
    """
    if runtime.is_main():
        obtain(url, sha256, cache)
    runtime.broadcast(None)
    return obtain(url, sha256, cache)  # another machine has a disk of its own


def obtain(url: str, sha256: str, cache: Path) -> Path:
    """The file at `url`, from `cache` when it is there and whole, for this process alone.

    Raises:
        ConfigError: for `url` when it cannot be fetched, for `sha256` when something else is there. Nothing
            is left in the cache then.
    """
    file = cache / f"{sha256[:12]}-{Path(urlsplit(url).path).name or 'file'}"
    if not _whole(file, sha256):
        _download(url, sha256, file)
    return file


def _whole(file: Path, sha256: str) -> bool:
    return file.is_file() and files.sha256_file(file) == sha256


def _download(url: str, sha256: str, file: Path) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError("url", url, "must begin with http:// or https://; for a local file give `path`")
    try:
        with files.replacing(file) as temporary:
            found = _stream(url, temporary)
            if found != sha256:
                mend = f"{url} has sha256 {found}: it changed, or is another file"
                raise ConfigError("sha256", sha256, mend)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        mend = f"cannot be fetched ({reason}); download it yourself and give `path`"
        raise ConfigError("url", url, mend) from error


def _stream(url: str, file: Path) -> str:
    """Writes what is at `url` to `file` and returns its sha256."""
    checksum = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, file.open("wb") as output:
        length = answer.headers["Content-Length"]
        expected = int(length) if length else None
        with Progress(Display(), f"download from {urlsplit(url).netloc}", expected, "bytes") as progress:
            while block := answer.read(BLOCK_BYTES):
                output.write(block)
                checksum.update(block)
                progress.advance(len(block))
        n_bytes = output.tell()
    if expected is not None and n_bytes != expected:
        raise ConfigError(
            "url", url, f"the connection ended after {n_bytes:,} of {expected:,} bytes; try again"
        )
    return checksum.hexdigest()
