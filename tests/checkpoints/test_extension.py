"""The config of a trained model for longer sequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llm.checkpoints.extension import extended
from llm.checkpoints.recipe import plain, recipe_of, with_adapter
from llm.config import build
from llm.models.rope_scaling import llama3, yarn
from llm.types import Batch, ConfigError
from tests.models.composition import SMALL, ids, load_model, load_part

LORA = {"_target_": "llm.models.adapters.lora.lora", "_partial_": True, "rank": 2}


def recipe(preset: str = "decoder", **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = recipe_of(load_model(preset, **{**SMALL, "n_heads": 4, **changes}))
    return {key: value for key, value in made.items() if key not in ("vocab_size", "max_seq_len")}


def scaling(name: str, **values: Any) -> dict[str, Any]:
    return {**recipe_of(load_part("scaling", name)), **values}


def scaled(recipe: dict[str, Any]) -> Any:
    return recipe["position"]["scaling"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", {"factor": 4.0}),
        ("yarn", {"factor": 4.0, "original_seq_len": 32}),
        ("llama3", {"factor": 4.0, "original_seq_len": 32}),
        ("ntk", {"factor": 1.0, "original_seq_len": 32}),
    ],
)
def test_what_follows_from_the_lengths_is_filled_in(name: str, expected: dict[str, Any]) -> None:
    before = recipe()
    after = extended(before, 32, 128, scaling(name))
    assert scaled(before) is None, "the model's own config is another"
    assert scaled(after).items() >= expected.items()
    assert {**after, "position": 0} == {**before, "position": 0}
    model = build({**after, "vocab_size": 61, "max_seq_len": 128, "_partial_": False})
    model.init_weights(torch.Generator().manual_seed(0))
    assert model(Batch(ids(1, 100))).isfinite().all()


def test_what_is_given_stays() -> None:
    given = scaling("yarn", factor=8.0, original_seq_len=16)
    assert scaled(extended(recipe(), 32, 128, given))["factor"] == 8.0
    half = scaled(extended(recipe(), 32, 128, scaling("yarn", original_seq_len=16)))
    assert (half["factor"], half["original_seq_len"]) == (8.0, 16)


@pytest.mark.parametrize("first", ["linear", "yarn", "ntk"])
def test_a_second_extension_counts_from_the_first_training(first: str) -> None:
    once = extended(recipe(), 32, 64, scaling(first))
    twice = scaled(extended(once, 64, 256, scaling("yarn")))
    assert (twice["original_seq_len"], twice["factor"]) == (32, 8.0)


def test_without_a_scaling_the_frequencies_stay() -> None:
    for preset in ("decoder", "gpt2"):
        assert extended(recipe(preset), 32, 32, None) == recipe(preset)
    assert extended(recipe(position=load_part("position", "alibi")), 32, 99, None)
    once = extended(recipe(), 32, 64, scaling("yarn"))
    assert extended(once, 64, 128, None) == once


def test_a_model_with_an_adapter_keeps_it() -> None:
    before = with_adapter(recipe(), LORA)
    after = extended(before, 32, 64, scaling("linear"))
    assert after["adapter"] == LORA
    assert after["base"]["position"]["scaling"]["factor"] == 2.0
    assert plain(before)["position"]["scaling"] is None


def test_learned_positions_end_where_they_end() -> None:
    with pytest.raises(ConfigError, match="learned a vector for each of 32 places") as mistake:
        extended(recipe("gpt2"), 32, 64, None)
    assert (mistake.value.key, mistake.value.value) == ("max_seq_len", 64)


@pytest.mark.parametrize("position", ["alibi", "none", "sinusoidal"])
def test_only_rotary_positions_can_be_scaled(position: str) -> None:
    with pytest.raises(ConfigError, match="only rotary positions") as mistake:
        extended(recipe(position=load_part("position", position)), 32, 64, scaling("yarn"))
    assert (mistake.value.key, mistake.value.value) == ("scaling", "yarn")


@pytest.mark.parametrize("length", [16, 32])
def test_a_scaling_is_for_longer_contexts(length: int) -> None:
    with pytest.raises(ConfigError, match="longer than the 32 tokens") as mistake:
        extended(recipe(), 32, length, scaling("linear"))
    assert mistake.value.key == "max_seq_len"


def test_a_fresh_model_must_say_what_it_is_scaled_from() -> None:
    frequencies = torch.ones(4)
    with pytest.raises(ConfigError, match="give a number") as mistake:
        yarn(frequencies, theta=1e4, max_seq_len=64, factor=2.0)
    assert mistake.value.key == "original_seq_len"
    with pytest.raises(ConfigError) as mistake:
        llama3(frequencies, theta=1e4, max_seq_len=64, original_seq_len=8)
    assert mistake.value.key == "factor"


def test_a_new_adapter_takes_the_place_of_an_old_one() -> None:
    twice = with_adapter(with_adapter(recipe(), LORA), {**LORA, "rank": 9})
    assert twice["base"] == recipe()
    assert twice["adapter"]["rank"] == 9
    assert plain(twice) == plain(recipe()) == recipe()
