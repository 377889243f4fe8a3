"""Dealing out a numbered sequence of draws among domains, so that shares hold at every moment.

Drawing domains at random would reach the shares only in the long run, and counters that remember what was
drawn would have to be saved. Here both questions, whose draw number n is and how many draws a domain had
before it, have an answer in closed form, so any step of training is rebuilt from its number.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class _Node:
    """A part of the domains: one of them, or two smaller parts, the lighter one first."""

    weight: int
    name: str
    halves: tuple[_Node, _Node] | None = None

    def lighter(self, n: int) -> int:
        """How many of this part's first `n` draws are its lighter half's: the share, rounded."""
        assert self.halves is not None
        return (2 * n * self.halves[0].weight + self.weight) // (2 * self.weight)


class Apportionment:
    """Draws 0, 1, 2, ... dealt out among domains in proportion to their weights.

    The domains are the leaves of a Huffman tree, and each node rounds its lighter half's share of its draws::

               a + b + c       of the first n draws round(n * (b + c) / (a + b + c)) are for b or c,
               /       \\       the others a's, when b + c < a;
              a       b + c    of the m for b or c round(m * c / (b + c)) are c's, the others b's,
                      /   \\    when c < b
                     b     c

    A rounded share grows by 0 or 1 from one draw to the next, so every draw has one owner. The error of a
    node is at most half a draw and its part of its parent's error. In a Huffman tree an inner node has two
    thirds of its parent's weight at most, so after any number of draws no domain is two draws or more away
    from its share. With integer weights each domain has exactly its weight after sum(weights) draws.

    Args:
        weights: 0 or more, some above 0; only their proportions matter. They are taken exactly.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        exact = {name: Fraction(weight) for name, weight in weights.items() if weight}
        assert exact, "all weights are 0"
        whole = math.lcm(*(weight.denominator for weight in exact.values()))
        heap = [(n := int(w * whole), name, _Node(n, name)) for name, w in exact.items()]
        heapq.heapify(heap)
        while len(heap) > 1:
            (one, name, first), (other, _, second) = heapq.heappop(heap), heapq.heappop(heap)
            heapq.heappush(heap, (one + other, name, _Node(one + other, name, (first, second))))
        self._root = heap[0][2]

    def place(self, number: int) -> tuple[str, int]:
        """Whose draw this is, and how many its owner had before."""
        node = self._root
        while node.halves is not None:
            before = node.lighter(number)
            goes_there = node.lighter(number + 1) > before
            number = before if goes_there else number - before
            node = node.halves[0 if goes_there else 1]
        return node.name, number

    def counts(self, n: int) -> dict[str, int]:
        """How many of the first `n` draws each domain has; one whose weight is 0 is not there."""
        return dict(self._counted(self._root, n))

    def _counted(self, node: _Node, n: int) -> Iterator[tuple[str, int]]:
        if node.halves is None:
            yield node.name, n
            return
        lighter = node.lighter(n)
        yield from self._counted(node.halves[0], lighter)
        yield from self._counted(node.halves[1], n - lighter)
