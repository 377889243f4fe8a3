"""A mixture of corpora: exact shares, and no sequence lost or repeated, whatever becomes of the weights."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.checking import check
from llm.config import compose
from llm.data.loader import InOrder, Loader
from llm.data.mixture import MixedData, MixedSequences
from llm.data.packed import PackedData, PackedTokens
from llm.data.packing import pack
from llm.data.timetable import Phase
from llm.runs.directory import read
from llm.tokenizers import byte, character
from llm.types import Batch, ConfigError, Dataset
from tests.conftest import Main

BYTES = byte.train([])


class Numbers:
    """A domain whose sequence i is one token, i and a thousand times its number."""

    bytes_per_target: float | None = 2.0

    def __init__(self, n: int, domain: int) -> None:
        self.n, self.domain = n, domain

    def __len__(self) -> int:
        return self.n

    def batch(self, indices: Sequence[int]) -> Batch:
        assert all(0 <= i < self.n for i in indices)
        tokens = torch.tensor(list(indices)).view(-1, 1) + 1000 * self.domain
        return Batch(tokens, tokens.clone())


SIZES = {"a": 30, "b": 7, "c": 13}
PHASES = [
    Phase({"a": 6, "b": 1, "c": 1}, until_step=9),
    Phase({"a": 0, "b": 1, "c": 1}, until_step=14),
    Phase({"a": 0.3, "b": 0.5, "c": 0.2}),
]


def mixture(phases: list[Phase] | None = None, **options: Any) -> MixedSequences:
    domains: dict[str, Dataset] = {name: Numbers(n, i) for i, (name, n) in enumerate(SIZES.items())}
    return MixedSequences(domains, phases if phases is not None else PHASES, 1, **options)


def stream(batches: Sequence[Batch]) -> dict[str, list[int]]:
    """The sequences of each domain in the order they came."""
    found = defaultdict(list)
    for batch in batches:
        assert batch.domains is not None
        for token, domain in zip(batch.tokens.flatten().tolist(), batch.domains.tolist(), strict=True):
            assert token // 1000 == domain
            found["abc"[domain]].append(token % 1000)
    return found


def assert_each_epoch_has_all_once(found: dict[str, list[int]]) -> None:
    for name, size in SIZES.items():
        for start in range(0, len(found[name]), size):
            epoch = found[name][start : start + size]
            assert len(set(epoch)) == len(epoch), "one comes twice in an epoch"
            assert len(epoch) == size or start + size > len(found[name]), "one is left out of an epoch"


def test_shares_hold_after_every_step() -> None:
    loader = Loader(mixture(), 8, seed=1)
    had: Counter[str] = Counter()
    for step in range(60):
        found = stream([loader.batch(step)])
        had.update({name: len(mine) for name, mine in found.items()})
        steps = [min(step + 1, 9), min(max(step - 8, 0), 5), max(step - 13, 0)]
        for name in SIZES:
            due = sum(
                8 * n * phase.weights[name] / sum(phase.weights.values())
                for n, phase in zip(steps, PHASES, strict=True)
            )
            assert abs(had[name] - due) < 2
    assert had["a"] == 54 + round(0.3 * 46 * 8)


def test_nothing_is_lost_or_repeated_across_phases() -> None:
    loader = Loader(mixture(), 8, seed=1)
    assert_each_epoch_has_all_once(stream([loader.batch(step) for step in range(60)]))


def test_every_epoch_has_an_order_of_its_own_unless_it_is_sorted() -> None:
    shuffled = stream([Loader(mixture(), 8, seed=1).batch(step) for step in range(60)])
    orders = {tuple(shuffled["b"][start : start + 7]) for start in range(0, 56, 7)}
    assert len(orders) > 6
    other = stream([Loader(mixture(), 8, seed=2).batch(step) for step in range(60)])
    assert other != shuffled
    assert {name: len(mine) for name, mine in other.items()} == {n: len(m) for n, m in shuffled.items()}
    in_order = stream([Loader(mixture(order="sorted"), 8, seed=1).batch(step) for step in range(60)])
    for name, size in SIZES.items():
        assert in_order[name] == [place % size for place in range(len(shuffled[name]))]


@settings(max_examples=30)
@given(cut=st.integers(0, 30), weights=st.lists(st.integers(0, 5), min_size=3, max_size=3).filter(any))
def test_other_weights_from_any_step_on_go_on_where_each_domain_stands(cut: int, weights: list[int]) -> None:
    first = [Loader(mixture(), 4, seed=3).batch(step) for step in range(cut)]
    past = [p for p in PHASES if p.until_step is not None and p.until_step < cut]
    current = PHASES[len(past)]
    changed = [*past, Phase(current.weights, until_step=cut)] if cut else []
    resumed = Loader(mixture([*changed, Phase(dict(zip("abc", weights, strict=True)))]), 4, seed=3)
    then = [resumed.batch(step) for step in range(cut, cut + 25)]
    assert_each_epoch_has_all_once(stream([*first, *then]))
    again = [resumed.batch(step) for step in range(cut)]
    assert all(torch.equal(one.tokens, other.tokens) for one, other in zip(first, again, strict=True))


@settings(max_examples=30)
@given(world=st.integers(1, 3), n_micro=st.integers(1, 3), step=st.integers(0, 40))
def test_the_split_never_changes_what_a_step_has(world: int, n_micro: int, step: int) -> None:
    loader = Loader(mixture(), 9, seed=3)
    whole = loader.batch(step)
    parts = [
        Loader(mixture(), 9, seed=3).batch(step, micro, n_micro, rank, world)
        for micro in range(n_micro)
        for rank in range(world)
    ]
    assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)
    assert torch.equal(torch.cat([part.domains for part in parts]), whole.domains)  # type: ignore[misc]


def test_as_a_dataset_it_has_everything_once_and_each_part_stands_for_all() -> None:
    everything = mixture()
    assert len(everything) == 50
    found = stream(InOrder(everything, 7)[:])
    assert found == {name: list(range(size)) for name, size in SIZES.items()}
    few = stream(InOrder(everything, 7, limit=10)[:])
    assert [len(few[name]) for name in SIZES] == pytest.approx([6, 1.4, 2.6], abs=1)


def test_a_domain_added_later_moves_no_other() -> None:
    with_d = {name: Numbers(n, i) for i, (name, n) in enumerate([*SIZES.items(), ("d", 5)])}
    later = MixedSequences(with_d, [Phase({"a": 1, "b": 1, "c": 1, "d": 0})], 1)
    now = mixture([Phase({"a": 1, "b": 1, "c": 1})])
    for step in range(20):
        one, other = Loader(later, 4, seed=0).batch(step), Loader(now, 4, seed=0).batch(step)
        assert torch.equal(one.tokens, other.tokens)


def test_packed_tokens_are_cut_elsewhere_each_epoch_and_keep_their_documents() -> None:
    tokens = np.arange(71, dtype=np.uint16)
    ends = lambda ids: ids % 3 == 0  # noqa: E731
    domains = {"a": PackedTokens(tokens, 7, ends=ends, n_bytes=142), "b": PackedTokens(tokens, 7, ends=ends)}
    mixed = MixedSequences(domains, [Phase({"a": 1, "b": 1})], 7)
    batch = Loader(mixed, 20, seed=0).batch(0)
    assert batch.documents is not None
    assert batch.domains is not None
    assert batch.tokens.shape == batch.documents.shape == (20, 7)
    for domain in (0, 1):
        mine = batch.targets[batch.domains == domain].flatten()  # type: ignore[index]
        assert len(set(mine[mine >= 0].tolist())) == 70, "each target once in an epoch"
    starts = {
        frozenset(row[0] % 7 for row in Loader(mixed, 20, seed=0).batch(epoch).tokens.tolist())
        for epoch in range(3)
    }
    assert len(starts) > 1
    assert mixed.bytes_per_target is None
    halves = MixedSequences({"a": domains["a"], "b": PackedTokens(tokens[:36], 7, n_bytes=36)}, None, 7)
    assert halves.bytes_per_target == pytest.approx((70 * 2 + 35 * 1) / 105)


# ----------------------------------------------------------------------------- the component


TEXTS = {"prose": "some words to learn from and others, ", "code": "f(x) = x + 1; "}


def make(folder: Path, **options: Any) -> MixedData:
    for name, text in TEXTS.items():
        BYTES.save(folder / name / "tokenizer")
        pack(folder / name / "train", [text * 9], BYTES)
        pack(folder / name / "validation", [text], BYTES)
    paths = {name: str(folder / name) for name in TEXTS}
    return MixedData(paths, partial(PackedData, seq_len=8), 8, **options)


def never(texts: object) -> byte.ByteTokenizer:
    raise AssertionError("packed data has its tokenizer")


def test_what_was_packed_is_mixed(tmp_path: Path) -> None:
    data = make(tmp_path, weights={"prose": 1, "code": 3})
    train, validation, tokenizer = data.load(never, tmp_path / "cache")
    batch = Loader(train, 8, seed=0).batch(0)
    assert Counter(batch.domains.tolist()) == {0: 2, 1: 6}  # type: ignore[union-attr]
    for row, domain in zip(batch.tokens, batch.domains, strict=True):  # type: ignore[arg-type]
        text = tokenizer.decode([int(token) for token in row]).replace("<|endoftext|>", "")
        assert text.strip("\0") in (TEXTS[["prose", "code"][int(domain)]] * 10)
    n_bytes = sum(map(len, TEXTS.values()))
    assert validation.bytes_per_target == pytest.approx(n_bytes / (n_bytes + 2), rel=1e-3)


def test_the_fingerprint_follows_tokens_and_weights(tmp_path: Path) -> None:
    weights = tmp_path / "weights.json"
    weights.write_text('{"weights": {"prose": 1, "code": 3}}')
    data = make(tmp_path, weights=str(weights))
    train = data.load(never, tmp_path / "cache").train
    assert isinstance(train, MixedSequences)
    assert train.phases[-1].weights == {"prose": 0.25, "code": 0.75}
    before = data.fingerprint()
    weights.write_text('{"weights": {"prose": 2, "code": 3}}')
    assert data.fingerprint() != before
    before = data.fingerprint()
    pack(tmp_path / "code" / "train", ["changed"], BYTES)
    assert data.fingerprint() != before


def test_sizes_are_the_weights_when_there_are_none(tmp_path: Path) -> None:
    train = make(tmp_path).load(never, tmp_path / "cache").train
    assert isinstance(train, MixedSequences)
    assert train.phases[-1].weights == train.sizes


PAST = [{"until_step": 3, "weights": {"prose": 1, "code": 3}}]
IN_TOKENS = {"until_tokens": 160, "weights": {"prose": 1, "code": 3}}
BEGIN = r"begin with phases=\[\{until_step:5,weights:\{prose:1,code:3\}\}\]"


@pytest.mark.parametrize(
    ("changes", "key", "mend"),
    [
        ({"weights": {"prose": 1, "code": 3}}, None, ""),
        ({"weights": {"prose": 2, "code": 6}}, None, ""),
        ({"weights": {"prose": 5, "code": 1}}, "phases", BEGIN),
        ({"weights": {"prose": 5, "code": 1}, "phases": PAST}, "phases", BEGIN),
        ({"weights": {"prose": 5, "code": 1}, "phases": [{**PAST[0], "until_step": 5}]}, None, ""),
        ({"weights": {"prose": 5, "code": 1}, "phases": [*PAST, IN_TOKENS]}, None, ""),
        ({"weights": {"prose": 1, "code": 3}, "order": "sorted"}, "order", "the run's 5 steps have shuffled"),
    ],
)
def test_a_run_that_goes_on_may_change_what_is_ahead_only(
    tmp_path: Path, changes: dict[str, Any], key: str | None, mend: str
) -> None:
    cache = tmp_path / "cache"
    first = Loader(make(tmp_path, weights={"prose": 1, "code": 3}).load(never, cache).train, 4, seed=0)
    drawn = [first.batch(step) for step in range(5)]
    resumed = Loader(make(tmp_path, **changes).load(never, cache).train, 4, seed=0)
    if key is None:
        resumed.batch(5)
        assert torch.equal(resumed.batch(4).tokens, drawn[4].tokens)
        return
    with pytest.raises(ConfigError, match=mend) as caught:
        resumed.batch(5)
    assert caught.value.key == key
    # from the first step on anything goes
    Loader(make(tmp_path, **changes).load(never, cache).train, 4, seed=0).batch(0)


def test_a_run_that_goes_on_keeps_its_sequences(tmp_path: Path) -> None:
    weights = {"prose": 1, "code": 1}
    data = make(tmp_path, weights=weights)
    Loader(data.load(never, tmp_path / "cache").train, 4, seed=0).batch(0)
    pack(tmp_path / "code" / "train", [TEXTS["code"] * 20], BYTES)
    with pytest.raises(ConfigError, match="and had 16 at the start") as caught:
        Loader(data.load(never, tmp_path / "cache").train, 4, seed=0).batch(1)
    assert (caught.value.key, caught.value.value) == ("paths.code", str(tmp_path / "code"))


def test_a_run_that_goes_on_keeps_its_batch_size(tmp_path: Path) -> None:
    data = make(tmp_path)
    Loader(data.load(never, tmp_path / "cache").train, 4, seed=0).batch(0)
    with pytest.raises(ConfigError, match="the run's 2 steps have 4") as caught:
        Loader(data.load(never, tmp_path / "cache").train, 8, seed=0).batch(2)
    assert caught.value.key == "batch_size"


BOTH = {"prose": 1, "code": 1}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"paths": {}}, "paths"),
    ({"weights": {"prose": 1}}, "weights"),
    ({"weights": {**BOTH, "other": 1}}, "weights.other"),
    ({"weights": {"prose": 0, "code": 0}}, "weights"),
    ({"weights": {"prose": -1, "code": 1}}, "weights.prose"),
    ({"phases": [{"weights": BOTH}]}, "phases.0"),
    ({"phases": [{"until_step": 1, "until_tokens": 1, "weights": BOTH}]}, "phases.0"),
    ({"phases": [{"until_step": 1, "weight": BOTH}]}, "phases.0"),
    ({"phases": [{"until_step": 0, "weights": BOTH}]}, "phases.0.until_step"),
    ({"phases": [{"until_step": 1.5, "weights": BOTH}]}, "phases.0.until_step"),
    ({"phases": [{"until_tokens": 9, "weights": BOTH}, {"until_tokens": 9, "weights": BOTH}]},
     "phases.1.until_tokens"),
    ({"phases": [{"until_step": 1, "weights": {"prose": 1}}]}, "phases.0.weights"),
    ({"phases": [{"until_step": 1, "weights": 3}]}, "phases.0"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "key"), WRONG, ids=[key for _, key in WRONG])
def test_mistakes(arguments: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MixedData(**{"paths": {"prose": "x", "code": "y"}, "each": PackedData, "seq_len": 8, **arguments})
    assert caught.value.key == key


def test_sequences_of_best_fit_have_no_order(tmp_path: Path) -> None:
    each = partial(PackedData, seq_len=8, packing="best_fit")
    paths = {"prose": "x"}
    MixedData(paths, each, 8)
    MixedData(paths, partial(PackedData, seq_len=8), 8, order="sorted")
    with pytest.raises(ConfigError, match="packing=concatenate") as caught:
        MixedData(paths, each, 8, order="sorted")
    assert caught.value.key == "order"
    wrong = ["task=pretrain", "data=mixture", "data.paths={a:x}", "data.order=sorted"]
    with pytest.raises(ExceptionGroup) as found:
        check(compose([*wrong, "+data.each.packing=best_fit"]))
    assert [mistake.key for mistake in found.value.exceptions] == ["data.order"]


def test_a_domain_that_cannot_be_read_or_has_another_tokenizer(tmp_path: Path) -> None:
    data = make(tmp_path)
    (tmp_path / "code" / "train.json").write_text(json.dumps({}))
    for ask in (lambda: data.load(never, tmp_path / "cache"), data.fingerprint):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert (caught.value.key, caught.value.value) == ("paths.code", str(tmp_path / "code"))
    data = make(tmp_path)
    letters = character.train([*TEXTS.values(), "\n"])
    letters.save(tmp_path / "code" / "tokenizer")
    for split in ("train", "validation"):
        pack(tmp_path / "code" / split, [TEXTS["code"] * 3], letters)
    with pytest.raises(ConfigError, match="another tokenizer than prose") as caught:
        data.load(never, tmp_path / "cache")
    assert caught.value.key == "paths.code"


def test_reweighted_has_no_phases(tmp_path: Path) -> None:
    phases = [{"until_step": 5, "weights": {"prose": 1, "code": 0}}]
    data = make(tmp_path, phases=phases)
    train = data.reweighted({"prose": 1, "code": 1}).load(never, tmp_path / "other").train
    assert isinstance(train, MixedSequences)
    assert train.phases == [Phase({"prose": 1, "code": 1})]
    assert len(data.phases) == 1


def test_a_training_run_changes_its_mixture_on_the_way(main: Main) -> None:
    make(main.home)
    paths = f"{{prose: {main.home / 'prose'}, code: {main.home / 'code'}}}"
    small = [
        "task=pretrain", "~tokenizer", "tracker=none", "data=mixture", f"data.paths={paths}",
        "data.weights={prose:1,code:3}", "data.seq_len=8", "model.d_model=16", "model.n_layers=1",
        "model.n_heads=2", "schedule=constant", "trainer.batch_size=4", "trainer.eval_every_steps=50",
    ]  # fmt: skip
    change = "data.phases=[{until_step:4,weights:{prose:1,code:3}}]", "data.weights={prose:9,code:1}"
    assert main(*small, "trainer.max_steps=4", "run_dir=cut").code == 0
    done = main("resume=cut", "data.weights={prose:9,code:1}", "trainer.max_steps=9", "tracker=none")
    assert done.code == 2
    assert (
        f"error: data.phases=[]: the run's 4 steps were drawn otherwise; begin with {change[0][5:]}"
        in done.err
    )
    done = main("resume=cut", *change, "trainer.max_steps=9", "tracker=none")
    assert done.code == 0, done.err
    assert main(*small, *change, "trainer.max_steps=9", "run_dir=whole").code == 0
    cut, whole = (read(main.home / name).result for name in ("cut", "whole"))
    assert cut["weights_sha256"] == whole["weights_sha256"], "the config says how the model came about"
