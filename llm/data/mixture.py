"""Several corpora mixed by weights that may change in the course of training, without loss or repeats.

Each domain goes through its own sequences, epoch after epoch, at its own pace. The weights say whose turn it
is, and how far each domain is at any step follows from the step alone: nothing is remembered, resuming
rebuilds it, and a change of weights goes on where each domain stands.
"""

from __future__ import annotations

import copy
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from llm import files, runtime
from llm.data.apportionment import Apportionment
from llm.data.loader import Loader, joined
from llm.data.timetable import Phase, Timetable
from llm.inputs import check_weights, digest, read_weights
from llm.tokenizers.base import same
from llm.types import IGNORE, Batch, ConfigError, Dataset, Splits, Tokenizer, TrainingData

Order = Literal["shuffled", "sorted"]

RECORD = "mixture.json"
"""In the run's data folder: what the sequences so far were drawn by."""


class MixedSequences:
    """The sequences of several datasets, as one. Implements `Dataset` and `llm.data.loader.SelfOrdered`.

    By its numbers as a `Dataset` it has every sequence once, the domains mixed evenly by their sizes, so that
    the first thousand stand for all. In training the phases decide. `Batch.domains` says where rows are from.

    Args:
        domains: datasets by name, whose sequences are equally long.
        phases: weights, one set after the other; the last has no end. None for the sizes as weights.
        seq_len: tokens of a sequence.
        order: whether a domain's sequences are shuffled anew each epoch, or come in their order every time.
        on_start: told of the first step that this process draws, before it does.
    """

    def __init__(
        self,
        domains: Mapping[str, Dataset],
        phases: Sequence[Phase] | None,
        seq_len: int,
        order: Order = "shuffled",
        on_start: Callable[[Timetable, int], object] = lambda *_: None,
    ) -> None:
        self.domains, self.seq_len, self.order = dict(domains), seq_len, order
        self.sizes = {name: len(dataset) for name, dataset in domains.items()}
        self.phases = list(phases) if phases is not None else [Phase(self.sizes)]
        self._numbers = {name: number for number, name in enumerate(domains)}
        self._by_size = Apportionment(self.sizes)
        self._on_start: Callable[[Timetable, int], object] | None = on_start
        self._timetable: Timetable | None = None
        self._loaders: dict[tuple[str, int], Loader] = {}

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def batch(self, indices: Sequence[int]) -> Batch:
        """The sequences `indices` of all, the domains mixed by size."""
        return self._gathered([self._by_size.place(int(index)) for index in indices], self._ordered)

    def drawn(self, numbers: range, batch_size: int, seed: int) -> Batch:
        """The sequences of these numbers in the run, as the phases have them.

        Raises:
            ConfigError: the phases contradict each other, or what an earlier session of the run has drawn.
        """
        timetable = self._timetable
        if timetable is None or timetable.batch_size != batch_size:
            timetable = self._timetable = Timetable(self.phases, batch_size, self.seq_len)
        if self._on_start is not None:
            self._on_start(timetable, numbers.start // batch_size)
            self._on_start = None

        def shuffled(name: str, places: Sequence[int]) -> Batch:
            if (name, seed) not in self._loaders:
                self._loaders[name, seed] = Loader(self.domains[name], 1, _seed(seed, name))
            return self._loaders[name, seed].sequences(places)

        read = shuffled if self.order == "shuffled" else self._ordered
        return self._gathered([timetable.place(number) for number in numbers], read)

    def _ordered(self, name: str, places: Sequence[int]) -> Batch:
        return self.domains[name].batch([place % self.sizes[name] for place in places])

    def _gathered(
        self, turns: Sequence[tuple[str, int]], read: Callable[[str, Sequence[int]], Batch]
    ) -> Batch:
        """The sequences of these turns in their order, read domain by domain."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, (name, _) in enumerate(turns):
            rows[name].append(row)
        whole = joined([read(name, [turns[row][1] for row in mine]) for name, mine in rows.items()])
        back = torch.argsort(torch.tensor([row for mine in rows.values() for row in mine]))
        fields = {name: value[back] for name, value in vars(whole).items() if value is not None}
        return Batch(**fields | {"domains": torch.tensor([self._numbers[name] for name, _ in turns])})

    @property
    def bytes_per_target(self) -> float | None:
        """Over all domains."""
        widths = {name: dataset.bytes_per_target for name, dataset in self.domains.items()}
        if any(width is None for width in widths.values()):
            return None
        targets = {name: self._n_targets(name) for name in widths}
        return sum((widths[name] or 0) * n for name, n in targets.items()) / sum(targets.values())

    def _n_targets(self, name: str) -> int:
        """Every sequence is full but perhaps the last."""
        last = self.domains[name].batch([self.sizes[name] - 1]).targets
        return (self.sizes[name] - 1) * self.seq_len + int((last != IGNORE).sum() if last is not None else 0)


def _seed(seed: int, name: str) -> int:
    """By name: a domain that comes later moves no other."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "big")


class MixedData:
    """Packed tokens of several domains. A `data` component.

    A phase is ``{until_step: 1000, weights: {docs: 1, code: 1}}``, or has `until_tokens`, from the run's
    start. A run that goes on (``resume=``) may change what is ahead of it. What it has drawn must stand in
    the phases as it was, so that the config still says how the model came about; a mistake says how.

    Args:
        paths: Name of each domain, and the directory that task=tokenize left, all with one tokenizer.
        each: Makes the data of one domain from its path.
        seq_len: Tokens in a training sequence.
        weights: By name, after the last phase; or a file with them, as task=doremi leaves it; None for the
            sizes.
        phases: What comes before, in order. Each has weights for all domains; 0 leaves one out.
        order: `sorted` reads each domain in its own order instead of a new random one each epoch; not with
            `packing=best_fit`, whose sequences have none.
    """

    def __init__(
        self,
        paths: Mapping[str, str],
        each: Callable[..., TrainingData],
        seq_len: Annotated[int, Field(ge=1)],
        weights: Mapping[str, float] | str | None = None,
        phases: Sequence[Mapping[str, Any]] = (),
        order: Order = "shuffled",
    ) -> None:
        self.check_arguments(paths, weights, phases, each, order)
        self.paths, self.each, self.seq_len = dict(paths), each, seq_len
        self.weights, self.order = weights, order
        self.phases = [Phase(**phase) for phase in phases]
        self._written = list(phases)

    @staticmethod
    def check_arguments(
        paths: Mapping[str, str],
        weights: Mapping[str, float] | str | None = None,
        phases: Sequence[Mapping[str, Any]] = (),
        each: Callable[..., TrainingData] | Mapping[str, Any] | None = None,
        order: str = "shuffled",
    ) -> None:
        """Weights are of the domains there are, phases end one after the other, and sequences have an order.

        Raises:
            ConfigError: they do not. Keys `paths`, `weights`, `phases`, `order`.
        """
        settings = each if isinstance(each, Mapping) else getattr(each, "keywords", {})
        if order == "sorted" and settings.get("packing") == "best_fit":
            mend = "packing=best_fit puts documents from all over a corpus together; take packing=concatenate"
            raise ConfigError("order", order, mend)
        if not paths:
            raise ConfigError("paths", "{}", "needs a domain at least: {NAME: directory of task=tokenize}")
        if isinstance(weights, Mapping):
            check_weights(weights, "weights", paths)
        before: dict[str, int] = {}
        for number, phase in enumerate(phases):
            key = f"phases.{number}"
            ends = [name for name in phase if name in ("until_step", "until_tokens")]
            whole = len(ends) == 1 and set(phase) == {*ends, "weights"}
            if not whole or not isinstance(phase["weights"], Mapping):
                mend = "a phase is {until_step: N, weights: {...}}, or has until_tokens"
                raise ConfigError(key, dict(phase), mend)
            end = phase[ends[0]]
            if type(end) is not int or end <= before.get(ends[0], 0):
                mend = f"must be a whole number above {before.get(ends[0], 0)}, where the phase begins"
                raise ConfigError(f"{key}.{ends[0]}", end, mend)
            before[ends[0]] = end
            check_weights(phase["weights"], f"{key}.weights", paths)

    def load(self, make_tokenizer: Callable[[Iterable[str]], Tokenizer], cache: Path) -> Splits:
        """Opens all domains; see `llm.data.packed.PackedData`.

        Raises:
            ConfigError: as there; or the domains were tokenised by different tokenizers.
        """
        parts: dict[str, Splits] = {}
        for name, data in self._domains():
            with self._named(name):
                parts[name] = data.load(make_tokenizer, cache / name)
        first, *others = parts
        tokenizer = parts[first].tokenizer
        for name in others:
            if not same(parts[name].tokenizer, tokenizer):
                mend = (
                    f"has another tokenizer than {first}; tokenize with tokenizer=saved tokenizer.directory="
                )
                raise ConfigError(f"paths.{name}", self.paths[name], f"{mend}{self.paths[first]}/tokenizer")
        record = cache / RECORD
        earlier = runtime.broadcast(
            files.read_json(record) if runtime.is_main() and record.is_file() else None
        )
        sizes = {name: len(splits.train) for name, splits in parts.items()}
        train = MixedSequences(
            {name: splits.train for name, splits in parts.items()},
            self._phases(sizes),
            self.seq_len,
            self.order,
            partial(self._begin, record, earlier, sizes),
        )
        held = {name: splits.validation for name, splits in parts.items()}
        return Splits(train, MixedSequences(held, None, self.seq_len), tokenizer)

    def reweighted(self, weights: Mapping[str, float]) -> MixedData:
        """The same domains under these weights from the first step to the last."""
        other = copy.copy(self)
        other.weights, other.phases, other._written = dict(weights), [], []
        return other

    def fingerprint(self) -> str:
        """A digest of the tokens of all domains, and of the weights when they are in a file."""
        digests = []
        for name, data in self._domains():
            with self._named(name):
                digests.append(data.fingerprint())
        if isinstance(self.weights, str):
            digests.append(digest([self.weights], key="weights"))
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def _domains(self) -> Iterator[tuple[str, TrainingData]]:
        for name, path in self.paths.items():
            yield name, self.each(path=path)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """The mistakes inside are those of this domain's path."""
        try:
            yield
        except ConfigError as mistake:
            if mistake.key != "path":
                raise
            raise ConfigError(f"paths.{name}", mistake.value, mistake.mend) from mistake

    def _phases(self, sizes: Mapping[str, int]) -> list[Phase]:
        """All phases, with what follows the last."""
        weights: Mapping[str, float] | str | None = self.weights
        if isinstance(weights, str):
            weights = read_weights(weights, key="weights").weights
            check_weights(weights, "weights", self.paths)
        return [*self.phases, Phase(weights or sizes)]

    def _begin(
        self,
        record: Path,
        earlier: Mapping[str, Any] | None,
        sizes: Mapping[str, int],
        timetable: Timetable,
        step: int,
    ) -> None:
        """Compares what was drawn before `step` with what this config says of it, and writes that down."""
        now = timetable.plain() | {"order": self.order, "sizes": sizes}
        if earlier is not None and step:
            for key in ("batch_size", "seq_len", "order"):
                if earlier[key] != now[key]:
                    mend = (
                        f"the run's {step:,} steps have {earlier[key]}: sequences would be lost or repeated"
                    )
                    raise ConfigError(key, now[key], mend)
            before = Timetable.restored(earlier)
            counts = before.counts(step * before.batch_size)
            if counts != timetable.counts(step * timetable.batch_size):
                mend = f"the run's {step:,} steps were drawn otherwise; begin with {before.written(step)}"
                raise ConfigError("phases", self._written, mend)
            for name in counts:
                if sizes[name] != earlier["sizes"][name]:
                    mend = f"has {sizes[name]:,} sequences, and had {earlier['sizes'][name]:,} at the start"
                    raise ConfigError(f"paths.{name}", self.paths[name], mend)
        if runtime.is_main():
            files.write_json(record, now)
