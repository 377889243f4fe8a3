"""Every YAML of conf/model writes the same with a cache of either kind as without one, in batches too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from llm.generation.engine import Completion, Generator
from llm.generation.sampling import Settings
from llm.models.cache import KVCache, StaticCache
from llm.models.decoder import Decoder
from llm.types import Batch
from tests.generation.fakes import ByteTokenizer
from tests.models.composition import CONF, ids, load_model, load_part, names, presets, small

WINDOW = 5
N_NEW = 9
PROMPTS = [[72, 101, 108, 108, 111], [65], [10, 66, 200, 3, 9, 9, 1, 2, 40, 7, 8], [65, 66]]


def _preset(name: str) -> Decoder:
    """A tiny one, its windows smaller than the prompts."""
    model = small(name, vocab_size=257)
    for block in model.layers():
        if getattr(block.attention, "window", None):
            block.attention.window = WINDOW  # type: ignore[attr-defined]
    return model.eval()


def _odd(**attention: Any) -> Callable[[], Decoder]:
    return lambda: small(
        vocab_size=257,
        n_kv_heads=2,
        attention=partial(load_part("attention", "multi_head"), **attention),
        position=load_part("position", "alibi"),
    ).eval()


ODD = {
    "all at once": _odd(window=4, full_every=2, sinks=True, soft_cap=5.0),
    "a window of one": _odd(window=1),
}
MODELS: dict[str, Callable[[], Decoder]] = {
    **{name: partial(_preset, name) for name in presets()},
    **{
        f"position {name}": lambda name=name: small(
            vocab_size=257, position=load_part("position", name)
        ).eval()
        for name in names("position")
    },
    **ODD,
}


ENCODER_DECODERS = [
    n
    for n in names("")
    if str(OmegaConf.load(CONF / f"{n}.yaml").get("_target_")).endswith(".EncoderDecoder")
]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Decoder:
    return MODELS[request.param]()


@torch.no_grad()
def check_is_what_the_model_would_write(model: Decoder, prompt: list[int], completion: Completion) -> None:
    """Without a cache: each token is the likeliest one after all before it, read anew."""
    read = torch.tensor([[*prompt, *completion.ids[:-1]]])
    expected = model(Batch(read))[0, len(prompt) - 1 :].log_softmax(-1).max(-1)
    assert list(completion.ids) == expected.indices.tolist()
    assert completion.log_probs == pytest.approx(expected.values.tolist(), abs=1e-4)


@pytest.mark.parametrize("cache", ["growing", "static"])
def test_a_cache_of_either_kind_changes_nothing(cache: str, model: Decoder):
    generator = Generator(model, ByteTokenizer())
    settings = Settings(temperature=0, max_new_tokens=N_NEW, cache=cache)
    together = generator.generate(PROMPTS, settings)
    assert sum(len(completion.ids) for completion in together) > 2 * N_NEW
    for prompt, completion in zip(PROMPTS, together, strict=True):
        check_is_what_the_model_would_write(model, prompt, completion)
    (alone,) = generator.generate(PROMPTS[2:3], settings)
    check_is_what_the_model_would_write(model, PROMPTS[2], alone)


@pytest.mark.parametrize("cache", ["growing", "static"])
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_a_cache_changes_nothing_behind_an_encoder(cache: str, name: str):
    model: Any = load_model(
        name,
        **{"vocab_size": 257, "max_seq_len": 32, "d_model": 48, "n_layers": 2, "n_heads": 6},
        **{"head_dim": None, "d_ff": 64, "dropout": 0.0},
    )()
    model.init_weights(torch.Generator().manual_seed(0))
    generator = Generator(model.eval(), ByteTokenizer())
    settings = Settings(temperature=0, max_new_tokens=N_NEW, cache=cache)
    for n_beams in (1, 3):
        for prompt, completion in zip(
            PROMPTS, generator.generate(PROMPTS, replace(settings, n_beams=n_beams)), strict=True
        ):
            tokens = torch.tensor([[model.start_id, *completion.ids]])
            with torch.no_grad():
                logits = model(Batch(tokens[:, :-1], source=torch.tensor([[*prompt, ByteTokenizer.eos_id]])))
            found = logits[0].log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0]
            assert completion.log_probs == pytest.approx(found.tolist(), abs=1e-4)
            if n_beams == 1:
                assert list(completion.ids) == logits[0].argmax(-1).tolist()


@pytest.mark.parametrize("cache", [KVCache, StaticCache])
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "position learned", *ODD])
@torch.no_grad()
def test_chunks_of_any_size(cache: type[KVCache], name: str):
    """Also a row that is padding at first, and room that is never used."""
    model, tokens = MODELS[name](), ids(2, 20, 257)
    padding = torch.arange(24) >= torch.tensor([[0], [7]])
    whole = model(Batch(tokens, padding=padding[:, :20]))
    kept, parts = cache(24), []
    for part in tokens.split([3, 2, 7, 1, 1, 6], 1):
        parts.append(model(Batch(part, padding=padding[:, : kept.columns(part.shape[1])]), kept))
    assert kept.length == 20
    error = (torch.cat(parts, 1) - whole).abs() * padding[:, :20, None]
    assert error.max() < 1e-5


def test_every_yaml_is_here():
    assert {"gpt2", "gpt_neox", "llama", "mistral", "qwen3", "gemma2", "olmo2", "mixtral"} <= set(MODELS)
    assert len({name for name in MODELS if name.startswith("position")}) >= 5
