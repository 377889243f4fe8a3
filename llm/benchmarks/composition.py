"""What the command line costs before any work: ``--cfg job`` against a hello-world Hydra app."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from llm.benchmarks.base import alternate
from llm.config import REPOSITORY
from llm.runs.run import Run
from llm.types import ConfigError

HELLO = """\
import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    print(config)


if __name__ == "__main__":
    main()
"""

SIDES = {"pretrain": ("task=pretrain",), "lifecycle": ()}
"""What is timed, by name: the overrides after ``python main.py --cfg job``."""


class Composition:
    """Whole processes that compose and print a config: ours, by every run's own path, and the smallest app.

    Args:
        n_rounds: processes timed of each side.
    """

    def __init__(self, n_rounds: Annotated[int, Field(gt=0)] = 15, name: str = "composition") -> None:
        self.n_rounds, self.name = n_rounds, name

    def measure(self, run: Run) -> dict[str, float]:
        """Median ratios ``ratio_pretrain`` and ``ratio_lifecycle`` with quartiles, and medians in seconds.

        Raises:
            ConfigError: there is no ``main.py``: the package was installed without its repository.
            RuntimeError: a process failed.
        """
        main = REPOSITORY / "main.py"
        if not main.is_file():
            raise ConfigError("benchmark", self.name, f"needs a checkout of the repository; no {main}")
        with tempfile.TemporaryDirectory(prefix="llm-benchmark-") as folder:
            hello = _hello_world(Path(folder))
            sides: dict[str, Callable[[], object]] = {"hello": partial(_run, [str(hello)], folder)}
            for name, overrides in SIDES.items():
                sides[name] = partial(_run, [str(main), *overrides], folder)
            total = (self.n_rounds + 1) * len(sides)
            with run.progress("composition", total, unit="processes") as progress:
                timings = alternate(sides, n_rounds=self.n_rounds, advance=progress.advance)
        metrics: dict[str, float] = {}
        for name in SIDES:
            metrics[f"ratio_{name}"], low, high = timings.ratio(name, "hello")
            metrics |= {f"ratio_{name}_low": low, f"ratio_{name}_high": high}
        metrics |= {f"seconds_{name}": timings.median(name) for name in sides}
        run.log_table("timings", list(sides), list(zip(*timings.seconds.values(), strict=True)))
        return metrics


def _hello_world(folder: Path) -> Path:
    """The smallest Hydra app with one config file; its ``hello.py``."""
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text("greeting: hello\n", encoding="utf-8")
    (folder / "hello.py").write_text(HELLO, encoding="utf-8")
    return folder / "hello.py"


def _run(arguments: Sequence[str], folder: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments, "--cfg", "job"],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(arguments)} --cfg job ended with {done.returncode}: {done.stderr.strip()[-300:]}"
        )
