"""Activations of wide and narrow models: what muP promises, and what the usual parametrization does not."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from llm.models.parametrization.mup import MuP
from llm.optimizers.adamw import adamw
from llm.training.coordinate_check import Size, at_width, measure, n_models, slopes, steepest
from llm.types import Batch, ConfigError
from tests.models.composition import ids, load_model

WIDTHS = (64, 128, 256, 512, 1024)
LAYERS = [f"{part} {n}" for n in range(2) for part in ("attention", "feed_forward", "stream")]


def batch(seed: int) -> Batch:
    tokens = ids(2, 9, vocab_size=256, seed=seed)
    return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


def checked(n_steps: int, n_seeds: int = 1, **changes: Any) -> list[Size]:
    model = load_model("llama", vocab_size=256, max_seq_len=8, n_layers=2, **changes)
    make = partial(adamw, lr=2e-3, weight_decay=0.1)
    return measure(model, make, batch, widths=WIDTHS, n_steps=n_steps, n_seeds=n_seeds)


def test_under_mup_every_layer_keeps_its_size() -> None:
    sizes = checked(8, parametrization=partial(MuP, base_d_model=128))
    found = slopes(sizes, 8)
    assert list(found) == ["embedding", *LAYERS, "logits"]
    assert {layer: slope for layer, slope in found.items() if abs(slope) > 0.1} == {}
    before = slopes(sizes, 0)  # the head's first weights count for less and less; all else is flat at once
    assert before.pop("logits") == pytest.approx(-0.5, abs=0.05)
    assert max(map(abs, before.values())) < 0.1


def test_under_the_usual_parametrization_they_grow() -> None:
    sizes = checked(1)
    layer, slope = steepest(sizes, 1)
    assert (layer in LAYERS, slope > 0.3) == (True, True)
    assert abs(slopes(sizes, 1)["embedding"]) < 0.1


def test_a_slope_is_that_of_a_line_through_the_logs() -> None:
    sizes = [Size(w, seed, 3, "a", 2.0 * w**0.75 * factor) for w in (16, 32, 128) for seed, factor in
             enumerate((0.5, 2.0))]  # fmt: skip
    sizes += [Size(w, 0, 3, "b", 5.0) for w in (16, 32, 128)] + [Size(16, 0, 2, "a", 1e9)]
    assert slopes(sizes, 3) == pytest.approx({"a": 0.75, "b": 0.0}, abs=1e-9)
    assert steepest(sizes, 3)[0] == "a"


def test_sizes_are_means_of_absolute_values_of_what_is_added_to_the_stream() -> None:
    for preset in ("decoder", "gemma2", "olmo2"):
        model = load_model(preset, vocab_size=256, max_seq_len=8, n_layers=1, head_dim=None)
        sizes = measure(model, adamw, batch, widths=[64, 128], n_steps=1, n_seeds=1)
        one = at_width(model, 128)()
        one.init_weights(torch.Generator().manual_seed(0))
        with torch.no_grad():
            logits = one(batch(0))
        read = {s.layer: s.size for s in sizes if (s.width, s.seed, s.step) == (128, 0, 0)}
        assert read["logits"] == pytest.approx(float(logits.abs().mean()), rel=1e-5)
        assert read["stream 0"] <= sum(read[n] for n in ("embedding", "attention 0", "feed_forward 0")) + 1e-6
        if preset != "decoder":  # behind a norm
            assert 0.2 < read["attention 0"] < 1.0


def test_narrow_models_are_more() -> None:
    assert [n_models(w, 1024, 2) for w in (64, 128, 256, 512, 1024)] == [16, 16, 8, 4, 2]
    sizes = measure(load_model("decoder", vocab_size=256, max_seq_len=8, n_layers=1), adamw, batch,
                    widths=[64, 16], n_steps=1, n_seeds=1, seed=5)  # fmt: skip
    assert {(s.width, s.seed) for s in sizes} == {(64, 5), (16, 5), (16, 6), (16, 7), (16, 8)}


def test_what_cannot_be_widened() -> None:
    with pytest.raises(ConfigError, match="nearest: 60, 64") as raised:
        at_width(load_model("decoder"), 62)
    assert (raised.value.key, raised.value.value) == ("widths", 62)
    with pytest.raises(ConfigError, match="has no d_model") as raised:
        at_width(partial(torch.nn.Linear, 3), 64)
    assert raised.value.key == "model"
