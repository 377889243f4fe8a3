"""Merging against arithmetic in numpy's float64, written number by number, and against examples by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from llm.checkpoints.merging.base import Merging, require_same_recipe, require_same_tensors
from llm.checkpoints.merging.linear import Linear
from llm.checkpoints.merging.slerp import Slerp, slerp
from llm.checkpoints.merging.task_arithmetic import TaskArithmetic
from llm.checkpoints.merging.ties import Ties
from llm.config import CONF, build
from llm.types import ConfigError

YAMLS = sorted((CONF / "merging").glob("*.yaml"))
SHAPES = {"a.weight": (7, 5), "a.bias": (7,), "norm": (5,)}


def weights(seed: int, spread: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: spread * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def near(base: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    return {name: base[name] + moved for name, moved in weights(seed, 0.1).items()}


def flat(tensors: dict[str, Tensor]) -> np.ndarray:
    return np.concatenate([tensor.double().numpy().ravel() for tensor in tensors.values()])


def run(method: Merging, models: Sequence[dict[str, Tensor]], base: Any = None) -> dict[str, Tensor]:
    method.require(len(models), has_base=base is not None)
    before = [flat(model) for model in models]
    merged = dict(method.merge(models, base))
    assert list(merged) == list(models[0])
    for name, tensor in merged.items():
        assert (tensor.shape, tensor.dtype) == (models[0][name].shape, models[0][name].dtype)
    assert all((flat(model) == old).all() for model, old in zip(models, before, strict=True))
    return merged


def check(found: dict[str, Tensor], expected: np.ndarray) -> None:
    np.testing.assert_allclose(flat(found), expected, rtol=0, atol=1e-6)


# ----------------------------------------------------------------------------- every method


def with_base(method: Merging) -> bool:
    """Whether it asks for a base."""
    try:
        method.require(2, has_base=False)
    except ConfigError:
        method.require(2, has_base=True)
        return True
    return False


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_models_that_are_the_same_stay_what_they_are(path: Path) -> None:
    method, model = build(OmegaConf.load(path)), weights(0)
    assert isinstance(method, Merging)
    copy = {name: tensor.clone() for name, tensor in model.items()}
    check(run(method, [model, copy], copy if with_base(method) else None), flat(model))


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_narrow_weights_stay_narrow(path: Path) -> None:
    method = build(OmegaConf.load(path))
    models = [{name: t.bfloat16() for name, t in weights(seed).items()} for seed in (1, 2)]
    run(method, models, models[0] if with_base(method) else None)


# ----------------------------------------------------------------------------- linear


@pytest.mark.parametrize(
    ("given", "normalise", "shares"),
    [
        (None, True, (1 / 3, 1 / 3, 1 / 3)),
        ([1.0, 2.0, 5.0], True, (1 / 8, 2 / 8, 5 / 8)),
        ([0.5, 0.5, -0.25], False, (0.5, 0.5, -0.25)),
    ],
)
def test_linear(given: Any, normalise: bool, shares: tuple[float, ...]) -> None:
    models = [weights(seed) for seed in range(3)]
    found = run(Linear(weights=given, normalise=normalise), models)
    check(found, sum(share * flat(model) for share, model in zip(shares, models, strict=True)))


# ----------------------------------------------------------------------------- slerp


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp(t: float) -> None:
    first, second = weights(1), weights(2)
    expected = []
    for name in first:
        v, w = (m[name].double().numpy().ravel() for m in (first, second))
        angle = math.acos((v / np.sqrt((v**2).sum())) @ (w / np.sqrt((w**2).sum())))
        expected.append(
            math.sin((1 - t) * angle) / math.sin(angle) * v + math.sin(t * angle) / math.sin(angle) * w
        )
    check(run(Slerp(t=t), [first, second]), np.concatenate(expected))


def test_slerp_by_hand() -> None:
    half = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    torch.testing.assert_close(half, torch.tensor([math.sqrt(0.5)] * 2))  # a mean would be shorter
    third = slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0]), 1 / 3)
    torch.testing.assert_close(third, torch.tensor([math.sqrt(3.0), 1.0]))


@pytest.mark.parametrize("second", [[2.0, 2.0], [-1.0, -1.0], [0.0, 0.0], [1.0, 1.00001]])
def test_slerp_of_what_has_no_arc_is_straight(second: list[float]) -> None:
    found = slerp(torch.ones(2), torch.tensor(second), 0.25)
    torch.testing.assert_close(found, 0.75 + 0.25 * torch.tensor(second))


# ----------------------------------------------------------------------------- task arithmetic


@pytest.mark.parametrize(("given", "parts"), [(None, (1, 1)), ([0.3, -1.0], (0.3, -1.0))])
def test_task_arithmetic(given: Any, parts: tuple[float, float]) -> None:
    base, models = weights(0), [weights(1), weights(2)]
    found = run(TaskArithmetic(weights=given, scale=0.7), models, base)
    moved = sum(part * (flat(model) - flat(base)) for part, model in zip(parts, models, strict=True))
    check(found, flat(base) + 0.7 * moved)


def test_a_task_can_be_forgotten() -> None:
    base, model = weights(0), weights(1)
    check(run(TaskArithmetic(weights=[-1.0], scale=1.0), [model], base), 2 * flat(base) - flat(model))


# ----------------------------------------------------------------------------- ties


def ties(models: list[np.ndarray], base: np.ndarray, density: float, parts: list[float]) -> np.ndarray:
    """Algorithm 1, a number at a time."""
    trimmed = []
    for model in models:
        moved = model - base
        limit = sorted(np.abs(moved), reverse=True)[round(density * len(moved)) - 1]
        trimmed.append([x if abs(x) >= limit else 0.0 for x in moved])
    added = []
    for column in zip(*trimmed, strict=True):
        total = sum(p * x for p, x in zip(parts, column, strict=True))
        agree = [(p, x) for p, x in zip(parts, column, strict=True) if x * total > 0]
        added.append(sum(p * x for p, x in agree) / sum(p for p, _ in agree) if agree else 0.0)
    return base + np.array(added)


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("given", [None, [1.0, 0.5, 2.0]])
def test_ties(density: float, given: Any) -> None:
    base = weights(0)
    models = [near(base, seed) for seed in (1, 2, 3)]
    expected = ties([flat(m) for m in models], flat(base), density, given or [1.0] * 3)
    check(run(Ties(density=density, weights=given), models, base), expected)
    by_tensor = run(Ties(density=density, weights=given, trim_over="tensor"), models, base)
    for name in base:
        one = ties([m[name].double().numpy().ravel() for m in models], base[name].double().numpy().ravel(),
                   density, given or [1.0] * 3)  # fmt: skip
        np.testing.assert_allclose(by_tensor[name].double().numpy().ravel(), one, rtol=0, atol=1e-6)


def test_ties_by_hand() -> None:
    """Half of each difference stays; the first place is agreed on, the second is not, the rest is trimmed."""
    base = {"w": torch.tensor([1.0, 1.0, 1.0, 1.0])}
    one = {"w": torch.tensor([3.0, 4.0, 1.1, 1.0])}  # moved by 2, 3, 0.1, 0
    two = {"w": torch.tensor([5.0, 0.0, 1.0, 0.9])}  # moved by 4, -1, 0, -0.1
    found = run(Ties(density=0.5), [one, two], base)["w"]
    torch.testing.assert_close(found, torch.tensor([1 + 3.0, 1 + 3.0, 1.0, 1.0]))
    halved = run(Ties(density=0.5, scale=0.5), [one, two], base)["w"]
    torch.testing.assert_close(halved, torch.tensor([2.5, 2.5, 1.0, 1.0]))
    heavy = run(Ties(density=0.5, weights=[1.0, 4.0]), [one, two], base)["w"]  # now the second sign wins
    torch.testing.assert_close(heavy, torch.tensor([1 + (2 + 16) / 5, 0.0, 1.0, 1.0]))


def test_ties_adds_nothing_where_models_cancel() -> None:
    base = {"w": torch.zeros(2)}
    found = run(Ties(density=1.0), [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([-1.0, 2.0])}], base)
    assert found["w"].tolist() == [0.0, 2.0]


# ----------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("method", "n_models", "has_base", "key", "words"),
    [
        (Linear(), 1, False, "models", "at least 2"),
        (Slerp(), 3, False, "models", "exactly 2"),
        (Linear(weights=[1.0, 2.0]), 3, False, "weights", "there are 3 models"),
        (Ties(weights=[1.0]), 2, True, "weights", "there are 2 models"),
        (Ties(), 2, False, "base", "give base=RUN"),
        (TaskArithmetic(), 1, False, "base", "give base=RUN"),
        (TaskArithmetic(), 0, True, "models", "at least 1"),
        (Linear(), 2, True, "base", "leave it out"),
        (Slerp(), 2, True, "base", "leave it out"),
    ],
)  # fmt: skip
def test_models_a_method_cannot_merge(
    method: Merging, n_models: int, has_base: bool, key: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as mistake:
        method.require(n_models, has_base=has_base)
    assert mistake.value.key == key


def test_shares_that_sum_to_zero() -> None:
    with pytest.raises(ConfigError, match="sum to zero"):
        Linear(weights=[1.0, -1.0])
    Linear(weights=[1.0, -1.0], normalise=False)


def test_other_tensors_are_named() -> None:
    first = weights(0)
    for other, words in (
        ({**first, "a.bias": torch.zeros(8)}, r"a.bias has shape \[8\], in the first model \[7\]"),
        ({k: v for k, v in first.items() if k != "norm"}, "it has no norm, the first model has"),
        ({**first, "more": torch.zeros(1)}, "it has more, the first model has not"),
    ):
        with pytest.raises(ConfigError, match=words) as mistake:
            require_same_tensors(first, other, key="models", value="RUN")
        assert (mistake.value.key, mistake.value.value) == ("models", "RUN")
    require_same_tensors(first, weights(1), key="models", value="RUN")


def test_another_function_of_the_same_tensors_is_named() -> None:
    recipe = {"n_heads": 4, "dropout": 0.0, "position": {"theta": 1e4}}
    require_same_recipe(recipe, {**recipe, "dropout": 0.1}, key="models", value="RUN")
    with pytest.raises(ConfigError, match=r"its model\.n_heads is 2, the first model's 4"):
        require_same_recipe(recipe, {**recipe, "n_heads": 2}, key="models", value="RUN")
    with pytest.raises(ConfigError, match=r"model\.position\.theta is 50000"):
        require_same_recipe(recipe, {**recipe, "position": {"theta": 5e4}}, key="models", value="RUN")
