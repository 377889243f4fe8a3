"""A config against the signatures of what it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from omegaconf import OmegaConf
from pydantic import Field

from llm import config
from llm.checking import check, find
from llm.types import ConfigError, Tokenizer

HERE = "tests.test_checking"


class Part:
    def __init__(
        self,
        size: int,
        rate: Annotated[float, Field(gt=0)] = 0.1,
        kind: Literal["a", "b"] = "a",
        betas: tuple[float, float] = (0.9, 0.99),
        path: Path | None = None,
        n_heads: int = 1,
        inner: Callable[..., object] | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.check_arguments(size=size, n_heads=n_heads)

    @staticmethod
    def check_arguments(*, size: int, n_heads: int) -> None:
        if size % n_heads:
            raise ConfigError("n_heads", n_heads, f"size={size} is not divisible by it")


@pytest.fixture(autouse=True)
def _trust_this_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "ALLOWED_TARGETS", (*config.ALLOWED_TARGETS, "tests."))


def mistakes(node: dict[str, object]) -> list[str]:
    try:
        check(OmegaConf.create({"part": {"_target_": f"{HERE}.Part", **node}}))
    except ExceptionGroup as error:
        return [str(one) for one in config.mistakes_in(error)]
    return []


@pytest.mark.parametrize(
    "node",
    [
        {"size": 4},
        {"size": 4, "rate": 1, "kind": "b", "betas": [0.5, 0.6], "path": "/tmp/x"},
        {"size": 4, "inner": {"_target_": f"{HERE}.Part", "size": 2}},
        {"_partial_": True},
    ],
)
def test_what_fits_passes(node: dict[str, object]) -> None:
    assert mistakes(node) == []


@pytest.mark.parametrize(
    ("node", "line"),
    [
        ({}, "part.size=???: is required"),
        ({"size": "???"}, "part.size=???: is required"),
        ({"size": "4"}, "part.size=4: should be a valid integer"),
        ({"size": 4.5}, "part.size=4.5: should be a valid integer"),
        ({"size": None}, "part.size=None: should be a valid integer"),
        ({"size": 4, "rate": -1.0}, "part.rate=-1.0: should be greater than 0"),
        ({"size": 4, "kind": "c"}, "part.kind=c: should be 'a' or 'b'"),
        ({"size": 4, "betas": [0.9]}, "part.betas"),
        ({"size": 4, "sise": 4}, "part.sise=4: no such key; did you mean part.size?"),
        ({"size": 5, "n_heads": 2}, "part.n_heads=2: size=5 is not divisible by it"),
        ({"size": 4, "inner": {"_target_": f"{HERE}.Part", "size": "x"}}, "part.inner.size=x: should be"),
        (
            {"size": 4, "inner": {"_target_": "os.system", "command": "ls"}},
            "part.inner._target_=os.system: may not",
        ),
        (
            {"size": 4, "inner": {"_target_": "llm.nothing.There"}},
            "part.inner._target_=llm.nothing.There: cannot",
        ),
        ({"size": 4, "tokenizer": "bpe"}, "part.tokenizer=bpe: must be a component"),
        ({"size": "${nowhere}"}, "part.size=${nowhere}: Interpolation key 'nowhere' not found"),
    ],
)
def test_what_does_not_fit_is_named(node: dict[str, object], line: str) -> None:
    found = mistakes(node)
    assert len(found) == 1, found
    assert found[0].startswith(line), found[0]


def test_all_mistakes_come_at_once() -> None:
    assert len(mistakes({"size": "x", "rate": -1.0, "kind": "z", "other": 1})) == 4


def test_an_interpolated_component_is_checked_once_where_it_is_written() -> None:
    node = OmegaConf.create({"a": {"_target_": f"{HERE}.Part", "size": "x"}, "b": "${a}"})
    with pytest.raises(ExceptionGroup) as caught:
        check(node)
    assert [m.key for m in config.mistakes_in(caught.value)] == ["a.size"]


def test_find_tells_a_missing_module_from_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module_for_find.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        find("broken_module_for_find.thing")
    with pytest.raises(ImportError):
        find("no_such_package_here.thing")
