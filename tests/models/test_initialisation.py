"""The first deviations, measured."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from omegaconf import OmegaConf

from llm.models.decoder import Decoder
from llm.models.parametrization.mup import MuP
from tests.models.composition import CONF, SMALL, load_model, load_part, names, on_meta, small

WIDE = {"d_model": 192, "n_layers": 3, "d_ff": 320, "tie_embeddings": False, "init_std": 0.05}


def deviations(model: Decoder) -> dict[str, float]:
    parts = {"embedding": "embedding", "unembedding": "unembedding", "qkv": "blocks.1.attention.qkv"}
    parts |= {
        "out": "blocks.1.attention.out",
        "up": "blocks.1.feed_forward.up",
        "down": "blocks.2.feed_forward.down",
    }
    return {name: float(model.get_submodule(path).weight.detach().std()) for name, path in parts.items()}


@pytest.mark.parametrize("preset", ["decoder", "gpt2"])
def test_gpt2(preset: str) -> None:
    depth = math.sqrt(2 * 3)
    expected = dict.fromkeys(("embedding", "unembedding", "qkv", "up"), 0.05) | dict.fromkeys(
        ("out", "down"), 0.05 / depth
    )
    assert deviations(small(preset, **WIDE)) == pytest.approx(expected, rel=0.03)


def test_scaled() -> None:
    depth, made = (
        math.sqrt(2 * 3),
        small("gpt2", initialisation=load_part("initialisation", "scaled"), **WIDE),
    )
    read = {"unembedding": 192, "qkv": 192, "out": 192 * depth**2, "up": 192, "down": 320 * depth**2}
    expected = {"embedding": 0.05, **{name: n**-0.5 for name, n in read.items()}}
    assert deviations(made) == pytest.approx(expected, rel=0.03)
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name


def test_a_parametrization_goes_on_from_the_bases_deviations() -> None:
    scaled = load_part("initialisation", "scaled")
    usual = small("gpt2", initialisation=scaled, **WIDE)
    ours = small("gpt2", initialisation=scaled, parametrization=partial(MuP, base_d_model=48), **WIDE)
    expected = deviations(usual)
    expected["unembedding"] *= 2  # as 48 inputs have it: the logits are divided by four instead
    assert deviations(ours) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", names("initialisation"))
def test_every_initialisation_sets_all_of_it_from_its_generator(name: str) -> None:
    component = load_part("initialisation", name)
    one = small("deepseek_v3", initialisation=component)
    two = on_meta(load_model("deepseek_v3", **{**SMALL, "initialisation": component})).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*two.parameters(), *two.buffers()):
            tensor.fill_(torch.nan)
    two.init_weights(torch.Generator().manual_seed(0))
    for (path, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b), path


def test_all_families_offer_the_choice() -> None:
    for path in CONF.glob("*.yaml"):
        config = OmegaConf.load(path)
        if str(config.get("_target_")).endswith(".Decoder"):
            groups = [next(iter(entry)) for entry in config.defaults if entry != "_self_"]
            assert {"initialisation", "parametrization"} <= set(groups), path.name
