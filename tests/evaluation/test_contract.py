"""Every YAML of conf/evaluation keeps the promises of llm/evaluation/base.py."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import llm.evaluation
from llm.config import CONF, compose
from tests.evaluation.contract import check_exam

NAMES = sorted(path.stem for path in (CONF / "evaluation").glob("*.yaml"))


def test_there_are_exams() -> None:
    assert {"multiple_choice", "preference_margin", "validation_loss"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_exam(name: str, tmp_path: Path, tokenizer: Any) -> None:
    check_exam(CONF / "evaluation" / f"{name}.yaml", tmp_path, tokenizer)


@pytest.mark.parametrize("name", NAMES)
def test_is_chosen_on_the_command_line(name: str) -> None:
    config = compose(["task=evaluate", f"evaluation=[{name}]"])
    assert list(config.evaluation) == [name]


def test_several_compose() -> None:
    overrides = [
        "task=evaluate",
        f"evaluation=[{','.join(NAMES)}]",
        "evaluation.multiple_choice.path=a.jsonl",
    ]
    config = compose(overrides)
    assert sorted(config.evaluation) == NAMES
    assert config.evaluation.multiple_choice.path == "a.jsonl"


FIRST_WORD = '''
    from llm.inputs import read_jsonl
    from llm.types import Request


    class FirstWord:
        """Does the model's answer start as the right one does? One generation a question."""

        def __init__(self, path: str, max_new_tokens: int = 4, name: str = "first_word") -> None:
            self.rows = [row for _, row in read_jsonl([path], key="path")]
            self.name, self.max_new_tokens = name, max_new_tokens

        def examples(self):
            return iter(self.rows)

        def requests(self, example):
            return [Request(example["question"], None, self.max_new_tokens)]

        def score(self, example, responses):
            right = example["choices"][example["answer"]].split()[0]
            return {"correct": float(responses[0].text.strip().startswith(right))}
'''
YAML = """\
# Does the model's answer start as the right one does?
first_word:
  _target_: llm.evaluation.first_word.FirstWord
  path: ???
  max_new_tokens: 3
"""


@pytest.fixture
def addition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Adds an exam as a user would: one python file in llm/evaluation, one YAML file."""
    monkeypatch.setattr(llm.evaluation, "__path__", [*llm.evaluation.__path__, str(tmp_path)])

    def add(source: str, yaml: str) -> Path:
        (tmp_path / "first_word.py").write_text(dedent(source))
        (tmp_path / "first_word.yaml").write_text(yaml)
        return tmp_path / "first_word.yaml"

    yield add
    sys.modules.pop("llm.evaluation.first_word", None)


def test_one_file_and_one_yaml_add_an_exam(addition: Any, tmp_path: Path, tokenizer: Any) -> None:
    check_exam(addition(FIRST_WORD, YAML), tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("iter(self.rows)", "iter(self.rows * 2)", "an id names one"),  # the same example twice
        ('return {"correct": float(', 'return {"correct": str(', "correct"),
        ("[Request(example", "[] and [Request(example", "asks nothing"),
        ('name: str = "first_word"', 'name: str = "other"', "calls itself other"),
        ("[row for _, row in read", "(row for _, row in read", "asked again"),
    ],
)
def test_the_contract_can_fail(
    addition: Any, right: str, wrong: str, says: str, tmp_path: Path, tokenizer: Any
) -> None:
    assert right in FIRST_WORD
    source = FIRST_WORD.replace(right, wrong)
    if "(row for" in source:  # a file that can be read only once
        source = source.replace('key="path")]', 'key="path"))')
    with pytest.raises(AssertionError, match=says):
        check_exam(addition(source, YAML), tmp_path, tokenizer)
