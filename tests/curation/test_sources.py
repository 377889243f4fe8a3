"""The contract of every source, found by its yaml file: a new one needs that file and an example here."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib.util
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from omegaconf import OmegaConf

from llm.checking import check
from llm.config import build, find
from llm.types import ConfigError
from tests.conftest import Site
from tests.curation.reading import read
from tests.curation.test_html import PAGE
from tests.curation.test_pdf import pdf
from tests.curation.test_warc import archive
from tests.curation.test_wikipedia import DUMP

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "curation" / "source"
ROWS = [{"text": f"document {number}"} for number in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def _in_folder(name: str, content: bytes) -> Callable[[Path], dict]:
    def make(folder: Path) -> dict:
        (folder / name).write_bytes(content)
        return {"path": str(folder)}

    return make


def _parquet(folder: Path) -> dict:
    pl.DataFrame(ROWS).write_parquet(folder / "x.parquet")
    return {"path": str(folder)}


def _warc(folder: Path) -> dict:
    archive(folder / "x.warc.gz", gz=True)
    return {"path": str(folder)}


def _huggingface(folder: Path) -> dict:
    (folder / "x.jsonl").write_bytes(LINES)
    return {"dataset": "json", "data_files": str(folder / "x.jsonl")}


EXAMPLES: dict[str, Callable[[Path], dict]] = {
    "code": _in_folder("x.py", b"x = 1\n"),
    "csv": _in_folder("x.csv", b"text\na\nb\n"),
    "html": _in_folder("x.html", PAGE.encode()),
    "huggingface": _huggingface,
    "jsonl": _in_folder("x.jsonl.gz", gzip.compress(LINES)),
    "parquet": _parquet,
    "pdf": _in_folder("x.pdf", pdf("words")),
    "text": _in_folder("x.txt", b"words\n"),
    "warc": _warc,
    "wikipedia": _in_folder("x.xml.bz2", bz2.compress((DUMP + "</mediawiki>").encode())),
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_contract(path: Path, tmp_path: Path, site: Site, monkeypatch):
    if path.stem == "embedded":
        pytest.skip("it reads packages, not files, and is not streamed")
    config = OmegaConf.load(path)
    assert path.read_text().startswith("# ")
    if path.stem == "web":
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        site.pages["/x.jsonl"] = LINES
        given = {"url": site.address + "/x.jsonl", "sha256": hashlib.sha256(LINES).hexdigest()}
    else:
        given = EXAMPLES[path.stem](tmp_path)
    config.update(given)
    check(config)
    source = build(config)
    first, again = read(source), read(build(config))
    assert first.equals(again)
    assert first["id"].is_unique().all()
    assert (
        first.select("id", "text", "source", "domain", "provenance").null_count().sum_horizontal().item() == 0
    )
    assert first["keep"].any()
    assert source.documents().collect().height == first["keep"].sum()
    assert source.fingerprint() == build(config).fingerprint()
    # the file is the list of settings that people see, so it has all of them, with the defaults
    defaults = {
        name: one.default for name, one in inspect.signature(find(config["_target_"])).parameters.items()
    }
    written = OmegaConf.to_container(OmegaConf.load(path))
    assert set(written) - {"_target_"} == set(defaults)
    for name, default in defaults.items():
        if written[name] != "???" and default is not inspect.Parameter.empty:
            assert written[name] == (list(default) if isinstance(default, tuple) else default), name


@pytest.mark.parametrize("module", ["trafilatura", "warcio", "pypdf", "mwparserfromhell", "datasets"])
def test_a_package_that_is_not_installed_is_named(module: str, tmp_path: Path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else real(name))
    names = {"trafilatura": "html", "warcio": "warc", "pypdf": "pdf", "mwparserfromhell": "wikipedia",
             "datasets": "huggingface"}  # fmt: skip
    config = OmegaConf.load(FOLDER / f"{names[module]}.yaml")
    config.update(EXAMPLES[names[module]](tmp_path))
    with pytest.raises(ConfigError, match=rf"needs {module}: pip install -e '\.\[\w+\]'"):
        build(config)
