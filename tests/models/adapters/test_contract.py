"""Every YAML of conf/model/adapter keeps the promises of llm/models/adapters/base.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from llm.alignment.dpo import DPO
from llm.generation.engine import Generator
from llm.generation.sampling import Settings
from llm.models.accounting import count_parameters, count_trained
from llm.models.adapters.base import Replacement, adapted
from llm.models.adapters.merge import is_adapted, merged
from llm.models.cache import KVCache
from llm.models.weights import persistent
from llm.optimizers.adamw import adamw
from llm.parallelism.base import Engine
from llm.parallelism.precision import Precision
from llm.parallelism.single import Single
from llm.tokenizers import byte
from llm.training.losses import NextToken
from llm.types import Batch, ConfigError
from tests.models.composition import CONF, SMALL, ids, instantiate, load_model, names, small

Adapter = Callable[..., nn.Module]
ADAPTERS = names("adapter")


def load(name: str, **arguments: Any) -> Adapter:
    node = OmegaConf.merge(OmegaConf.load(CONF / "adapter" / f"{name}.yaml"), {"seed": 1})
    return partial(instantiate(node), **{"rank": 2, **arguments})


def logits(model: nn.Module, length: int = 12) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(Batch(ids(2, length)))
    return out


def engine_of(model: nn.Module, dtype: Any = "float32") -> Engine:
    algorithm = NextToken()
    return Single().prepare(
        model, partial(adamw, lr=1e-2), None, loss=algorithm.loss, precision=Precision(dtype=dtype),
        clip_norm=1.0, units=algorithm.units,
    )  # fmt: skip


def batch_of(step: int) -> Batch:
    tokens = ids(4, 13, seed=step % 3)
    return Batch(tokens[:, :-1], tokens[:, 1:])


def trained(model: nn.Module, steps: int = 4) -> nn.Module:
    engine = engine_of(model)
    for step in range(steps):
        engine.step([batch_of(step)], 1.0)
    return model


def snapshot(engine: Engine) -> dict[str, dict[str, Tensor]]:
    return {part: {n: t.clone() for n, t in tensors.items()} for part, tensors in engine.state().items()}


def test_there_are_adapters_to_check() -> None:
    assert {"lora", "dora", "qlora"} <= set(ADAPTERS)


@pytest.mark.parametrize(
    ("name", "preset"),
    [*product(ADAPTERS, ["decoder", "gpt2"]), ("lora", "mixtral"), ("qlora", "deepseek_v3")],
)
def test_it_starts_where_the_model_was(name: str, preset: str) -> None:
    extra = {"d_ff": 32} if preset in ("mixtral", "deepseek_v3") else {"n_heads": 4}
    model = small(preset, **extra)
    before = logits(model.eval())
    after = load(name)(model)
    assert is_adapted(after)
    # What four bits cost is known from the model with its matrices rounded, without any adapter.
    expected = logits(merged(after)) if name == "qlora" else before
    torch.testing.assert_close(logits(after), expected, rtol=0, atol=1e-5)
    assert (logits(after) - before).std() < 0.5 * before.std()


@pytest.mark.parametrize("name", ADAPTERS)
def test_only_what_it_added_is_trained(name: str) -> None:
    model = load(name)(small("gpt2", n_heads=4))
    before = {n: t.clone() for n, t in persistent(model).items()}
    engine = engine_of(model)
    held = {id(p) for group in engine.optimizer.param_groups for p in group["params"]}
    wanted = {n for n, p in model.named_parameters() if p.requires_grad}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(n.rpartition(".")[2] in ("a", "b", "magnitude") for n in wanted)
    losses = [engine.step([batch_of(0)], 1.0)["loss"] for _ in range(12)]
    assert losses[-1] < losses[0] - 0.1
    changed = {n for n, t in persistent(model).items() if not torch.equal(t, before[n])}
    assert changed == wanted
    assert {n.rpartition(":")[0] for n in engine.state()["optimizer"]} == wanted


@pytest.mark.parametrize("name", ADAPTERS)
def test_training_goes_on_with_the_same_bits(name: str) -> None:
    def fresh() -> Engine:
        return engine_of(load(name, dropout=0.2)(small()))

    def run(engine: Engine, first: int, last: int) -> Engine:
        for step in range(first, last):
            torch.manual_seed(step)
            engine.step([batch_of(step)], 1.0)
        return engine

    whole, half = run(fresh(), 0, 4), run(fresh(), 0, 2)
    resumed = fresh()
    resumed.load_state(snapshot(half))
    run(resumed, 2, 4)
    ours, expected = resumed.state(), whole.state()
    for part in ("model", "optimizer"):
        assert ours[part].keys() == expected[part].keys()
        assert all(torch.equal(ours[part][n], t) for n, t in expected[part].items())


@pytest.mark.parametrize("name", ADAPTERS)
def test_merged_it_is_a_plain_model_of_the_same_function(name: str) -> None:
    base = small(n_kv_heads=2)
    model = trained(load(name)(base)).eval()
    inside = {id(p) for p in model.parameters()}
    before = {n: t.clone() for n, t in persistent(model).items()}
    plain = merged(model)
    torch.testing.assert_close(logits(plain), logits(model), rtol=0, atol=1e-5)
    assert persistent(plain).keys() == persistent(small(n_kv_heads=2)).keys()
    assert not is_adapted(plain)
    assert all(p.requires_grad for p in plain.parameters())
    assert not inside & {id(p) for p in plain.parameters()}
    assert all(torch.equal(t, before[n]) for n, t in persistent(model).items())
    assert merged(plain) is plain
    fresh = small(n_kv_heads=2, seed=3)
    fresh.load_state_dict(plain.state_dict())
    torch.testing.assert_close(logits(fresh.eval()), logits(plain), rtol=0, atol=0)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_second_adapter_starts_at_what_the_first_one_taught(name: str) -> None:
    once = trained(load(name)(small())).eval()
    twice = load("lora")(once).eval()
    torch.testing.assert_close(logits(twice), logits(once), rtol=0, atol=1e-5)
    outer = [n for n, m in twice.named_modules() if isinstance(m, Replacement)]
    assert not any(n.endswith(".base") for n in outer)


@pytest.mark.parametrize("name", ADAPTERS)
def test_first_weights_follow_from_the_seed_and_the_name(name: str) -> None:
    def first(**arguments: Any) -> dict[str, Tensor]:
        return {n: t.clone() for n, t in persistent(load(name, **arguments)(small())).items()}

    torch.manual_seed(1)
    one = first()
    assert all(torch.equal(t, one[n]) for n, t in first().items())
    model, state = small(), torch.get_rng_state()
    load(name)(model)
    assert torch.equal(state, torch.get_rng_state()), "it draws from the global random state"
    drawn = [n for n in one if n.endswith(".a")]
    other, fewer = first(seed=2), first(targets=["attention.out"])
    assert all(not torch.equal(other[n], one[n]) for n in drawn)
    assert {n for n in drawn if n in fewer} == {n for n in drawn if "attention.out" in n}
    assert all(torch.equal(fewer[n], one[n]) for n in drawn if n in fewer)
    assert not torch.equal(one[drawn[0]], one["blocks.1" + drawn[0].removeprefix("blocks.0")])


@pytest.mark.parametrize("name", ADAPTERS)
def test_it_is_rebuilt_from_its_recipe_and_its_tensors(name: str) -> None:
    model = trained(load(name)(small("gpt2", n_heads=4))).eval()
    base = load_model("gpt2", **{k: v for k, v in SMALL.items() if k not in ("vocab_size", "max_seq_len")})
    again = adapted(61, 32, base=partial(base, n_heads=4), adapter=load(name, seed=9))
    tensors = {n: t.detach().clone() for n, t in persistent(model).items()}
    missing, unexpected = again.load_state_dict(tensors, strict=False)
    assert (missing, unexpected) == ([], [])
    torch.testing.assert_close(logits(again.eval()), logits(model), rtol=0, atol=0)
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trainable == [n for n, p in again.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("name", ADAPTERS)
def test_cached_generation_is_that_of_the_merged_model(name: str) -> None:
    model = trained(load(name)(small(vocab_size=259))).eval()
    with torch.no_grad():
        tokens, cache = ids(2, 9), KVCache(9)
        parts = [model(Batch(part), cache) for part in tokens.split([5, 1, 1, 2], dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(Batch(tokens)), rtol=0, atol=1e-5)
    settings = Settings(max_new_tokens=8, temperature=0.0)
    written = [
        list(Generator(m, byte.train([]), torch.device("cpu")).stream([1, 2, 3], settings))[-1]
        for m in (model, merged(model))
    ]
    assert written[0].ids == written[1].ids
    assert written[0].log_probs == pytest.approx(written[1].log_probs, abs=1e-5)


@pytest.mark.parametrize("name", ADAPTERS)
def test_preference_optimisation_starts_at_its_reference(name: str) -> None:
    policy = load(name)(small())
    algorithm = DPO()
    algorithm.setup(policy)
    loss, _ = algorithm.loss(policy, batch_of(0))
    assert loss.item() == pytest.approx(0.693147, abs=1e-5)
    trained(policy)
    assert algorithm.loss(policy, batch_of(0))[0].item() != pytest.approx(0.693147, abs=1e-3)


@pytest.mark.parametrize("name", ADAPTERS)
def test_narrow_numbers(name: str) -> None:
    engine = engine_of(load(name)(small()), "bfloat16")
    losses = [engine.step([batch_of(0)], 1.0)["loss"] for _ in range(10)]
    assert losses[-1] < losses[0]
    narrow = load(name)(small().bfloat16())
    assert narrow(Batch(ids(2, 5))).dtype == torch.bfloat16
    assert {p.dtype for p in narrow.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in merged(narrow).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ADAPTERS)
def test_without_storage(name: str) -> None:
    with torch.device("meta"):
        model = load(name)(load_model("decoder", **SMALL)())
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert persistent(model).keys() == persistent(load(name)(small())).keys()


@pytest.mark.parametrize("name", ADAPTERS)
def test_frozen_numbers_count_in_four_bits_too(name: str) -> None:
    model = small(bias=True, n_heads=4)
    before = count_parameters(model)
    assert count_trained(model) == before
    after = load(name)(model)
    assert count_parameters(after) == before + count_trained(after)
    assert 0 < count_trained(after) < before / 4


def test_targets_are_globs_from_any_dot_on() -> None:
    def layers(*targets: str) -> set[str]:
        model = load("lora", targets=targets)(small())
        return {n for n, m in model.named_modules() if isinstance(m, Replacement)}

    assert layers("attention.qkv") == {f"blocks.{n}.attention.qkv" for n in (0, 1)}
    assert layers("feed_forward.*", "blocks.1.attention.out") == {
        "blocks.1.attention.out",
        *(f"blocks.{n}.feed_forward.{part}" for n in (0, 1) for part in ("gate", "up", "down")),
    }
    untied = load("lora")(small(tie_embeddings=False))
    assert not isinstance(untied.unembedding, Replacement), "the head is not adapted"
    assert len(layers("*")) == 2 * 5


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("lora", "targets", ["attention.qkv", "q_proj"], "q_proj names no linear layer; there are blocks.*"),
        ("dora", "targets", [], "name at least one"),
        ("qlora", "targets", ["unembedding"], "blocks.*.feed_forward.gate"),
        ("qlora", "quantised", ["nothing"], "blocks.*.attention.qkv, blocks.*.attention.out"),
    ],
)
def test_a_target_that_is_not_there(name: str, key: str, value: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as mistake:
        load(name, **{key: value})(small(tie_embeddings=False))
    assert mistake.value.key == key
    assert words in str(mistake.value)


def test_a_noted_tensor_with_a_graph_does_not_stop_merging() -> None:
    model = load("lora")(small("mixtral", d_ff=32))
    model(Batch(ids(2, 8))).sum().backward()
    torch.testing.assert_close(logits(merged(model)), logits(model), rtol=0, atol=1e-5)
    assert copy.deepcopy(merged(small())) is not None
