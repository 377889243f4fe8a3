"""Metrics computed by Hugging Face `evaluate` modules that lie in this package, without a network.

`evaluate` copies a module into a cache and imports the copy. The cache used here is a folder of this
process alone: no copy left torn by a killed process, no clash with another one, and no need for a home
directory one may write to.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

METRICS = Path(__file__).parent / "metrics"

_OFFLINE = {"HF_EVALUATE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def compute(
    name: str, predictions: Sequence[float], references: Sequence[float], **further: Any
) -> dict[str, float]:
    """The metrics of the module ``metrics/<name>/<name>.py`` for one list of predictions and references.

    Args:
        name: folder of the module.
        predictions: what the model did, one entry an example.
        references: what each is held against, of the same length.
        further: the module's own inputs and settings.
    """
    metrics: dict[str, float] = _load(name).compute(
        predictions=list(predictions), references=list(references), **further
    )
    return metrics


@cache
def _load(name: str) -> Any:
    """The module; imported here, since `evaluate` takes two seconds to import."""
    folder = _process_folder()
    with _environment({**_OFFLINE, "HF_MODULES_CACHE": str(folder / "modules")}):
        import evaluate  # reads these variables when imported, and only then

    # In memory: the answers of an exam are few, and files are for what several processes share.
    return evaluate.load(str(METRICS / name), keep_in_memory=True, cache_dir=str(folder / "data"))


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="llm-evaluate-")  # removed when the process ends


def _process_folder() -> Path:
    return Path(_folder().name)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
