"""Encoder-decoder models: against torch's own transformer, causal, cached, padded, and with every part."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from llm.models.accounting import flops_per_token
from llm.models.attention.multi_head import MultiHeadAttention
from llm.models.cache import KVCache, StaticCache
from llm.models.encoder_decoder import EncoderDecoder
from llm.models.norms import RMSNorm
from llm.models.weights import persistent
from llm.types import Batch, ConfigError
from tests.models.composition import CONF, ids, load_model, load_part, names, on_meta

SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "max_seq_len": 32,
    "d_model": 48,
    "n_layers": 2,
    "n_encoder_layers": 3,
    "n_heads": 6,
    "head_dim": None,
    "d_ff": 64,
    "dropout": 0.0,
}
PRESETS = [
    n
    for n in names("")
    if str(OmegaConf.load(CONF / f"{n}.yaml").get("_target_")).endswith(".EncoderDecoder")
]


def small(preset: str = "t5", seed: int = 0, **overrides: Any) -> EncoderDecoder:
    model: Any = load_model(preset, **{**SMALL, **overrides})()
    model.init_weights(torch.Generator().manual_seed(seed))
    assert isinstance(model, EncoderDecoder)
    return model


def pairs(n_source: int = 11, n_target: int = 9, seed: int = 0) -> Batch:
    return Batch(ids(2, n_target, seed=seed), source=ids(2, n_source, seed=seed + 1))


def test_there_are_presets() -> None:
    assert {"t5", "t5_v1_0", "transformer"} <= set(PRESETS)


# ----------------------------------------------------------------------------- against torch


def test_the_first_transformer_is_torchs() -> None:
    ours = small("transformer", scale_embeddings=False)
    theirs = nn.Transformer(
        48, 6, num_encoder_layers=3, num_decoder_layers=2, dim_feedforward=64, dropout=0.0, batch_first=True
    )
    with torch.no_grad():
        for parameter in [*ours.parameters(), *theirs.parameters()]:
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.05)
    for block, layer in zip(ours.encoder_layers(), theirs.encoder.layers, strict=True):
        copy_attention(block.attention, layer.self_attn)
        copy_rest(block, layer, (("attention_norm", "norm1"), ("feed_forward_norm", "norm2")))
    for block, layer in zip(ours.layers(), theirs.decoder.layers, strict=True):
        copy_attention(block.attention, layer.self_attn)
        copy_attention(block.cross_attention, layer.multihead_attn)
        norms = (
            ("attention_norm", "norm1"),
            ("cross_attention_norm", "norm2"),
            ("feed_forward_norm", "norm3"),
        )
        copy_rest(block, layer, norms)
    theirs.encoder.norm.load_state_dict(ours.encoder_norm.state_dict())
    theirs.decoder.norm.load_state_dict(ours.norm.state_dict())

    batch = pairs()
    assert batch.source is not None
    padding = torch.arange(11) < torch.tensor([11, 6])[:, None]
    ours.eval()
    theirs.eval()
    with torch.no_grad():
        found = ours.hidden(Batch(batch.tokens, source=batch.source, source_padding=padding))

        def embedded(tokens: Tensor) -> Tensor:
            return ours.position.embed(ours.embedding(tokens), torch.arange(tokens.shape[1])[None])

        expected = theirs(
            embedded(batch.source),
            embedded(batch.tokens),
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(9),
            src_key_padding_mask=~padding,
            memory_key_padding_mask=~padding,
        )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def copy_attention(ours: Any, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        for name in ("weight", "bias"):
            groups = getattr(ours.qkv, name).unflatten(0, (6, 3, 8)).transpose(0, 1).flatten(0, 2)
            getattr(theirs, f"in_proj_{name}").copy_(groups)
    theirs.out_proj.load_state_dict(ours.out.state_dict())


def copy_rest(ours: Any, theirs: nn.Module, norms: tuple[tuple[str, str], ...]) -> None:
    theirs.linear1.load_state_dict(ours.feed_forward.up.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.down.state_dict())
    for own, other in norms:
        getattr(theirs, other).load_state_dict(getattr(ours, own).state_dict())


# ----------------------------------------------------------------------------- what every model promises

VARIANTS: dict[str, dict[str, Any]] = {
    "alibi": {"position": load_part("position", "alibi")},
    "rotary, grouped, norms everywhere": {
        "position": load_part("position", "rotary"),
        "attention": partial(MultiHeadAttention, qk_norm=RMSNorm),
        "n_kv_heads": 2,
        "norm_placement": "sandwich",
    },
    "window, soft cap, sinks": {"attention": partial(MultiHeadAttention, window=3, soft_cap=5.0, sinks=True)},
}


@pytest.fixture(params=[*PRESETS, *VARIANTS], scope="module")
def model(request: pytest.FixtureRequest) -> EncoderDecoder:
    """Each preset, and T5 with other parts."""
    if request.param in PRESETS:
        return small(request.param).eval()
    return small(**VARIANTS[request.param]).eval()


def test_shapes_and_gradients(model: EncoderDecoder) -> None:
    batch = pairs()
    hidden, logits = model.hidden(batch), model(batch)
    assert hidden.shape == (2, 9, 48)
    assert logits.shape == (2, 9, 61)
    torch.testing.assert_close(logits, model.head(hidden), rtol=0, atol=0)
    nn.functional.cross_entropy(logits.flatten(0, 1), ids(2, 9, seed=5).flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_the_decoder_sees_what_was_written_and_all_of_the_source(model: EncoderDecoder) -> None:
    batch = pairs()
    assert batch.source is not None
    later, source = batch.tokens.clone(), batch.source.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 61
    before, after = model(batch), model(Batch(later, source=batch.source))
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=0, atol=1e-5)
    assert (before[:, 5:] - after[:, 5:]).abs().max() > 1e-3
    source[:, -1] = (source[:, -1] + 1) % 61  # the first token written knows the last one read
    assert (model(Batch(batch.tokens, source=source))[:, 0] - before[:, 0]).abs().max() > 1e-4
    read = model.encode(batch.source), model.encode(source)
    assert (read[0][:, -2] - read[1][:, -2]).abs().max() > 1e-4, "the encoder looks ahead"


@pytest.mark.parametrize("kind", [KVCache, StaticCache])
@torch.no_grad()
def test_cached_is_uncached(model: EncoderDecoder, kind: type[KVCache]) -> None:
    batch, padding = pairs(), torch.arange(11) < torch.tensor([11, 6])[:, None]
    whole = model(Batch(batch.tokens, source=batch.source, source_padding=padding))
    cache = kind(12)
    parts = [
        model(Batch(part, source=None if n else batch.source, source_padding=None if n else padding), cache)
        for n, part in enumerate(batch.tokens.split([1, 4, 1, 3], 1))
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=2e-5)


@torch.no_grad()
def test_sources_of_different_lengths_are_read_as_if_alone(model: EncoderDecoder) -> None:
    tokens, source, lengths = ids(3, 7), ids(3, 10, seed=1), (10, 4, 7)
    for left in (False, True):
        places = torch.arange(10)
        padding = torch.stack([places >= 10 - n if left else places < n for n in lengths])
        together = model(Batch(tokens, source=source, source_padding=padding))
        for row in range(3):
            alone = model(Batch(tokens[row : row + 1], source=source[row][padding[row]][None]))[0]
            torch.testing.assert_close(together[row], alone, rtol=0, atol=2e-5)


@torch.no_grad()
def test_targets_padded_on_the_left_are_written_as_if_alone(model: EncoderDecoder) -> None:
    tokens, source, lengths = ids(2, 8), ids(2, 6, seed=1), (8, 5)
    padding = torch.arange(8) >= 8 - torch.tensor(lengths)[:, None]
    together = model(Batch(tokens, padding=padding, source=source))
    for row, length in enumerate(lengths):
        alone = model(Batch(tokens[row : row + 1, 8 - length :], source=source[row : row + 1]))[0]
        torch.testing.assert_close(together[row, 8 - length :], alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("initialisation", ["gpt2", "t5"])
def test_first_weights_come_from_the_generator_alone(preset: str, initialisation: str) -> None:
    torch.manual_seed(1)
    first = load_part("initialisation", initialisation)
    one = small(preset, seed=5, initialisation=first)
    two: Any = on_meta(load_model(preset, **SMALL, initialisation=first)).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*two.parameters(), *two.buffers()):
            tensor.fill_(torch.nan)
    state = torch.get_rng_state()
    two.init_weights(torch.Generator().manual_seed(5))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.embedding.weight, small(preset, seed=6).embedding.weight)


# ----------------------------------------------------------------------------- details


def test_a_cache_keeps_its_sequences_in_step() -> None:
    model = small().eval()
    batch, cache = pairs(), KVCache(9)
    padding = torch.arange(11) < torch.tensor([11, 6])[:, None]
    with torch.no_grad():
        whole = model(Batch(batch.tokens, source=batch.source, source_padding=padding))
        model(Batch(batch.tokens[:, :4], source=batch.source, source_padding=padding), cache)
        cache.select(torch.tensor([1]))
        rest = model(Batch(batch.tokens[1:, 4:]), cache)
    torch.testing.assert_close(rest, whole[1:, 4:], rtol=0, atol=1e-5)


def test_the_source_is_projected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, cache = small().eval(), pairs(), KVCache(9)
    seen: list[int] = []
    for block in model.layers():
        block.cross_attention.qkv.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    with torch.no_grad():
        model(Batch(batch.tokens[:, :4], source=batch.source), cache)
        assert sorted(seen) == [4, 4, 11, 11]
        seen.clear()
        model(Batch(batch.tokens[:, 4:5]), cache)
    assert seen == [1, 1]


def test_what_t5_starts_from() -> None:
    """Variances as in Mesh TensorFlow: queries with the scale that attention leaves out."""
    model = small("t5_v1_0", d_model=256, head_dim=16, n_heads=16, d_ff=512)
    assert model.embedding.weight.std().item() == pytest.approx(1, rel=0.05)
    groups = model.blocks[1].cross_attention.qkv.weight.unflatten(0, (16, 3, 16))
    assert groups[:, 0].std().item() == pytest.approx(256**-0.5 * 16**-0.5, rel=0.02)
    assert groups[:, 1:].std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert model.encoder_blocks[0].feed_forward.down.weight.std().item() == pytest.approx(512**-0.5, rel=0.02)
    assert model.encoder_position.table.weight.std().item() == pytest.approx(256**-0.5, rel=0.2)
    with torch.no_grad():
        logits = model(pairs())
    assert 0.5 < logits.std().item() < 2


def test_parameters_of_the_small_releases() -> None:
    """Raffel et al. 2020, section 3.7: 60 million; the released files, with 32,128 ids, have these."""
    for preset, expected in (("t5_v1_0", 60_506_624), ("t5", 76_961_152)):
        model = on_meta(load_model(preset, vocab_size=32128, max_seq_len=512))
        assert sum(p.numel() for p in persistent(model).values()) == expected


def test_work_is_counted_by_hand() -> None:
    """d_model 48, width of heads 48, d_ff 64, 61 ids; two layers write, three read."""
    model = small("t5_v1_0")
    attention, feed, looking = 2 * 4 * 48 * 48, 2 * 2 * 48 * 64, 4 * 48
    reading = 10 * 3 * (attention + feed + looking * 10)
    writing = 7 * (2 * (2 * attention + feed + looking * (7 + 10)) + 2 * 48 * 61)
    crossing = 10 * 2 * (2 * 3 * 48 * 48)
    assert model.forward_flops(10, 7) == reading + writing + crossing
    assert flops_per_token(model, 8) == model.forward_flops(8, 8) / 16


def test_the_plan_names_all_blocks() -> None:
    model = small()
    plan = model.parallel_plan()
    blocks = [name for name, style in plan.items() if style == "block"]
    assert blocks == ["blocks.0", "blocks.1", *(f"encoder_blocks.{n}" for n in range(3))]
    for name, style in plan.items():
        assert style == "block" or isinstance(model.get_submodule(name), nn.Linear)
    assert plan["blocks.1.cross_attention.out"] == "row"


def test_mistakes() -> None:
    model = small()
    for wrong, key in (
        (lambda: model(Batch(ids(1, 4))), "data"),
        (lambda: model(Batch(ids(1, 40), source=ids(1, 4))), "seq_len"),
        (lambda: model(Batch(ids(1, 4), source=ids(1, 40))), "seq_len"),
        (lambda: small(start_id=61), "start_id"),
        (lambda: small(n_heads=5), "n_heads"),
        (lambda: small(attention=load_part("attention", "latent")), "attention"),
    ):
        with pytest.raises(ConfigError) as caught:
            wrong()
        assert caught.value.key == key


def test_a_decoder_has_no_use_for_a_source() -> None:
    decoder = load_model("decoder", vocab_size=61, max_seq_len=32, d_model=16, n_layers=1, n_heads=2)()
    with pytest.raises(ConfigError, match="source"):
        decoder(pairs())
