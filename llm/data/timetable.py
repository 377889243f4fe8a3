"""Whose turn it is in a mixture of corpora: weights that hold for a while, one set after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llm.data.apportionment import Apportionment
from llm.types import ConfigError


@dataclass(frozen=True)
class Phase:
    """Weights of the domains up to a step, or until so many tokens were read; to the end when neither."""

    weights: Mapping[str, float]
    until_step: int | None = None
    until_tokens: int | None = None

    def end(self, batch_size: int, seq_len: int) -> int | None:
        """Sequences of the run read at its end; a phase ends with a whole step."""
        if self.until_tokens is not None:
            return -(-self.until_tokens // (batch_size * seq_len)) * batch_size
        return None if self.until_step is None else self.until_step * batch_size


class Timetable:
    """Which domain has which turn, over all phases.

    Args:
        phases: one after the other; the last has no end.
        batch_size: sequences of a step.
        seq_len: tokens of a sequence.

    Raises:
        ConfigError: a phase ends before the one in front of it does. Key `phases`.
    """

    def __init__(self, phases: Sequence[Phase], batch_size: int, seq_len: int) -> None:
        assert phases[-1].end(1, 1) is None
        self.phases, self.batch_size, self.seq_len = list(phases), batch_size, seq_len
        self._starts = [0]
        for phase in phases[:-1]:
            end = phase.end(batch_size, seq_len)
            if end is None or end < self._starts[-1]:
                mend = f"ends before the phase in front of it, at step {self._starts[-1] // batch_size:,}"
                raise ConfigError("phases", phase.until_step or phase.until_tokens, mend)
            self._starts.append(end)
        self._shares = [Apportionment(phase.weights) for phase in phases]
        self._before: list[dict[str, int]] = [{}]
        for start, end, share in zip(self._starts, self._starts[1:], self._shares, strict=False):
            self._before.append(_sum(self._before[-1], share.counts(end - start)))

    def place(self, number: int) -> tuple[str, int]:
        """Whose turn this is, and how many sequences the domain has had before."""
        current = self.phase(number)
        name, count = self._shares[current].place(number - self._starts[current])
        return name, self._before[current].get(name, 0) + count

    def counts(self, number: int) -> dict[str, int]:
        """How many of the run's first `number` sequences are from each domain; none from those left out."""
        current = self.phase(number)
        return _sum(self._before[current], self._shares[current].counts(number - self._starts[current]))

    def plain(self) -> dict[str, Any]:
        """For a file."""
        phases = [asdict(phase) for phase in self.phases]
        return {"batch_size": self.batch_size, "seq_len": self.seq_len, "phases": phases}

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Timetable:
        """From what `plain` gave."""
        return cls([Phase(**phase) for phase in values["phases"]], values["batch_size"], values["seq_len"])

    def written(self, step: int) -> str:
        """The phases up to a step, as one types them."""
        current = self.phase(step * self.batch_size - 1)
        ends = [*(start // self.batch_size for start in self._starts[1 : current + 1]), step]
        parts = []
        for end, phase in zip(ends, self.phases, strict=False):
            weights = ",".join(f"{name}:{weight:.17g}" for name, weight in phase.weights.items())
            parts.append(f"{{until_step:{end},weights:{{{weights}}}}}")
        return f"phases=[{','.join(parts)}]"

    def phase(self, number: int) -> int:
        """The phase that a turn is in."""
        return bisect_right(self._starts, number) - 1


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: n for name in [*one, *other] if (n := one.get(name, 0) + other.get(name, 0))}
