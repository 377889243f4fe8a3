"""UniMax: as even as the data allow, with a limit on how often any of it is repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from llm.curation.mixture import Group, Mixture


class UniMaxMixture(Mixture):
    """A budget shared evenly, of which no group takes more than `max_repeats` times what it has.

    Chung et al. 2023, "UniMax: Fairer and more effective language sampling for large-scale multilingual
    pretraining", algorithm 1. Unlike a temperature it never repeats a scarce language more often than said,
    and gives what such languages leave to the others, in equal parts.

    Args:
        max_repeats: The paper's N: passes over a group at most.
        budget_bytes: The paper's C, in UTF-8 bytes: size of the result at most; that of the corpus when null.
        seed: Chooses which documents go or are repeated once more.
        by: Column that is balanced, or several.
    """

    def __init__(
        self,
        max_repeats: Annotated[int, Field(ge=1)] = 4,
        budget_bytes: Annotated[int, Field(ge=1)] | None = None,
        seed: int = 0,
        by: str | list[str] = "language",
    ) -> None:
        super().__init__(by, max_repeats, seed)
        self.budget_bytes = budget_bytes

    def targets(self, n_bytes: Mapping[Group, int]) -> dict[Group, float]:
        """The budget as `unimax` shares it."""
        return unimax(n_bytes, self.budget_bytes or sum(n_bytes.values()), self.max_repeats)

    def note(self, n_bytes: Mapping[Group, int], targets: Mapping[Group, float]) -> None:
        """Nothing: no group costs the others anything, and the budget is known."""


def unimax(sizes: Mapping[Group, int], budget: float, max_epochs: float) -> dict[Group, float]:
    """How much of the budget each group gets; algorithm 1, from the smallest group to the largest.

    Args:
        sizes: what each group has.
        budget: what all of them are to have together; less when the epochs do not allow it.
        max_epochs: passes over a group at most.
    """
    found: dict[Group, float] = {}
    left = float(budget)
    for number, group in enumerate(sorted(sizes, key=lambda one: (sizes[one], one))):
        even = left / (len(sizes) - number)
        found[group] = min(even, sizes[group] * max_epochs)
        left -= found[group]
    return found
