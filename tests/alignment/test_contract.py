"""Every YAML of conf/alignment keeps the promises of llm/training/algorithm.py."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import llm.alignment
from llm.config import CONF, compose
from tests.alignment.contract import check_algorithm

NAMES = sorted(path.stem for path in (CONF / "alignment").glob("*.yaml"))


def test_there_are_algorithms() -> None:
    assert {"sft", "dpo"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_algorithm(name: str) -> None:
    check_algorithm(CONF / "alignment" / f"{name}.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_is_chosen_on_the_command_line(name: str) -> None:
    config = compose(["task=align", f"alignment={name}"])
    assert config.alignment._target_.startswith("llm.alignment.")


IPO = '''
    from typing import Annotated

    import torch
    from pydantic import Field
    from torch import Tensor, nn

    from llm.alignment.dpo import DPO
    from llm.training.losses import sequence_log_probs
    from llm.types import Batch


    class IPO(DPO):
        """Identity preference optimisation (Azar et al. 2023, eq. 17)."""

        def __init__(self, beta: Annotated[float, Field(gt=0)] = 0.1) -> None:
            super().__init__(beta)

        def loss(self, policy: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            with torch.no_grad():
                reference, _ = sequence_log_probs(self.reference, batch)
            sums, counts = sequence_log_probs(policy, batch)
            chosen, rejected = ((sums - reference) / counts).chunk(2)
            return (chosen - rejected - 1 / (2 * self.beta)).square().mean(), {}
'''


@pytest.fixture
def addition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Adds an algorithm as a user would: one python file in llm/alignment, one YAML file."""
    monkeypatch.setattr(llm.alignment, "__path__", [*llm.alignment.__path__, str(tmp_path)])

    def add(source: str, yaml: str) -> Path:
        (tmp_path / "ipo.py").write_text(dedent(source))
        (tmp_path / "ipo.yaml").write_text(yaml)
        return tmp_path / "ipo.yaml"

    yield add
    sys.modules.pop("llm.alignment.ipo", None)


YAML = "# Identity preference optimisation.\n_target_: llm.alignment.ipo.IPO\nbeta: 0.2\n"


def test_one_file_and_one_yaml_add_an_algorithm(addition: Any) -> None:
    check_algorithm(addition(IPO, YAML))


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        (".square().mean(), {}", ".square().sum(), {}", "mean over its units"),  # not a mean over units
        (".mean(), {}", ".mean(), {'margin': chosen.mean()}", "margin holds on to the graph"),
        ("- 1 / (2 * self.beta)).square().mean(), {}", ").detach().mean(), {}", "does not require grad"),
    ],
)
def test_the_contract_can_fail(addition: Any, right: str, wrong: str, says: str) -> None:
    assert right in IPO
    with pytest.raises((AssertionError, RuntimeError), match=says):
        check_algorithm(addition(IPO.replace(right, wrong), YAML))


@pytest.mark.parametrize("mistake", ["beta: -1\n", "bta: 0.2\n", "beta: strong\n"])
def test_a_users_mistake_is_found_in_the_config(addition: Any, mistake: str) -> None:
    with pytest.raises(ExceptionGroup):
        check_algorithm(addition(IPO, YAML.replace("beta: 0.2\n", mistake)))
