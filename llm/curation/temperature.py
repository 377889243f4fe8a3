"""Temperature sampling: large domains or languages shrunk by a power of their size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from llm.curation.mixture import Group, Mixture, capped
from llm.types import ConfigError


class TemperatureMixture(Mixture):
    """Shares in proportion to size ** alpha, where alpha is 1 / temperature.

    Alpha 1 (temperature 1) keeps the corpus as it is, and alpha towards 0 makes all groups equal::

        alpha  temperature
        0.7    1.43         mBERT (Devlin et al. 2019)
        0.3    3.33         XLM-R (Conneau et al. 2020), mT5 (Xue et al. 2021)
        0.2    5            massively multilingual translation (Arivazhagan et al. 2019)

    Here the size of a group is its UTF-8 bytes. Small groups only grow when they may be repeated, and the
    total stays that of the corpus: what a group cannot fill with `max_repeats` passes goes to the others, in
    proportion. With `max_repeats` 1 the shares are kept, and the total is what the scarcest group allows.

    Args:
        alpha: The exponent; null when a temperature is given.
        temperature: The inverse of the exponent; null when alpha is given.
        max_repeats: Copies of a document at most; 1 never repeats.
        seed: Chooses which documents go or are repeated once more.
        by: Column that is balanced, or several.
    """

    def __init__(
        self,
        alpha: Annotated[float, Field(ge=0, le=1)] | None = 0.3,
        temperature: Annotated[float, Field(ge=1)] | None = None,
        max_repeats: Annotated[int, Field(ge=1)] = 4,
        seed: int = 0,
        by: str | list[str] = "language",
    ) -> None:
        self.check_arguments(alpha, temperature)
        super().__init__(by, max_repeats, seed)
        self.alpha = alpha if alpha is not None else 1 / (temperature or 1)

    @staticmethod
    def check_arguments(alpha: float | None = 0.3, temperature: float | None = None) -> None:
        """Just one of both is given.

        Raises:
            ConfigError: none or both. Key `temperature`.
        """
        if (alpha is None) == (temperature is None):
            mend = "alpha and temperature say the same: give one of them and set the other to null"
            raise ConfigError("temperature", temperature, mend)

    def targets(self, n_bytes: Mapping[Group, int]) -> dict[Group, float]:
        """The powers' shares of the corpus's bytes, scarce groups capped."""
        return capped(power_shares(n_bytes, self.alpha), n_bytes, self.max_repeats)


def power_shares(sizes: Mapping[Group, int], alpha: float) -> dict[Group, float]:
    """q_i = p_i ** alpha / sum_j p_j ** alpha, with p_i = n_i / sum_k n_k (Conneau et al. 2020)."""
    whole = sum(sizes.values())
    powers = {group: (size / whole) ** alpha for group, size in sizes.items()}
    total = sum(powers.values())
    return {group: power / total for group, power in powers.items()}
