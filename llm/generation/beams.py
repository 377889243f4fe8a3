"""Beam search: several continuations of a prompt followed side by side, the best whole one kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from llm.generation.reading import Reader
from llm.generation.sampling import Settings, likeliest, penalised
from llm.generation.text import TextStream

Likeliest = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Beam:
    """One continuation.

    Attributes:
        ids: its tokens.
        log_probs: of each of them under the model itself.
        top_log_probs: the likeliest tokens in the place of each, if they are asked for.
        total: the sum of the log-probabilities that the search compares: those after a repetition penalty.
        stream: its text so far, where a stop text may end it.
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    top_log_probs: tuple[Likeliest, ...]
    total: float
    stream: TextStream | None

    def score(self, length_penalty: float) -> float:
        """``total / length^length_penalty``."""
        return self.total / float(len(self.ids) ** length_penalty)


class Search:
    """The beams of one prompt.

    At most `n_beams` beams run on. A beam ends at a stop id, a stop text or after `n_new` tokens, and is
    among the answers if it was one of the `n_beams` best candidates of its step. The search ends when there
    are `n_beams` answers and the best running beam, scored at its present length, is no better than the worst
    of them (what transformers calls ``early_stopping=False``).

    Args:
        n_new: tokens to write at most.
        stop_ids: ids at which a beam ends.
        stream: the text of a beam without tokens, if there are stop texts.
        settings: of the generation.
    """

    def __init__(
        self, n_new: int, stop_ids: frozenset[int], stream: TextStream | None, settings: Settings
    ) -> None:
        self.n_new, self.stop_ids = n_new, stop_ids
        self.n_beams, self.length_penalty = settings.n_beams, settings.length_penalty
        self.running = [Beam((), (), (), 0.0, stream)]
        self.answers: list[Beam] = []
        self.parents: list[int] = []

    @property
    def done(self) -> bool:
        """Whether no running beam can become the answer any more."""
        if not self.running:
            return True
        if len(self.answers) < self.n_beams:
            return False
        return self.running[0].score(self.length_penalty) <= self.answers[-1].score(self.length_penalty)

    def advance(self, candidates: Sequence[tuple[float, int, int, float]], tops: Sequence[Likeliest]) -> None:
        """One token further.

        Args:
            candidates: total, number of the running beam, token and the token's log-probability, best first.
            tops: the likeliest tokens after each running beam; empty if they are not asked for.
        """
        running: list[Beam] = []
        self.parents = []
        for rank, (total, parent, token, log_prob) in enumerate(candidates):
            if parent >= len(self.running) or len(running) == self.n_beams:
                continue
            beam = self._extended(self.running[parent], token, log_prob, total, tops[parent : parent + 1])
            ended = token in self.stop_ids or len(beam.ids) == self.n_new
            if ended or (beam.stream is not None and beam.stream.stopped):
                if rank < self.n_beams:
                    self.answers.append(beam)
            else:
                running.append(beam)
                self.parents.append(parent)
        self.running = running
        self.answers.sort(key=lambda beam: -beam.score(self.length_penalty))
        del self.answers[self.n_beams :]

    def _extended(
        self, beam: Beam, token: int, log_prob: float, total: float, top: Sequence[Likeliest]
    ) -> Beam:
        stream = beam.stream
        if stream is not None and token not in self.stop_ids:
            stream = stream.fork()
            stream.push(token)
        ids, log_probs = (*beam.ids, token), (*beam.log_probs, log_prob)
        return Beam(ids, log_probs, (*beam.top_log_probs, *top), total, stream)


def search(reader: Reader, searches: Sequence[Search], settings: Settings) -> None:
    """Runs the searches of a batch of prompts together, each to its end.

    Args:
        reader: of the prompts, in the order of `searches`.
        searches: fresh ones; their `answers` are there afterwards, best first.
        settings: of the generation.
    """
    n_beams = settings.n_beams
    logits = reader.start()
    # The prompt is read once; then each has `n_beams` rows, of which only the first counts as yet.
    spread = [row for row in range(len(searches)) for _ in range(n_beams)]
    reader.select(spread)
    logits = logits[spread]
    # Even if all the best candidates end here, as many go on.
    n_stops = max((len(s.stop_ids) for s in searches), default=0)
    n_kept = n_beams * max(2, 1 + n_stops)
    going = list(searches)
    while True:
        candidates = _candidates(logits, going, reader, settings, n_kept)
        tops = likeliest(logits, settings.top_log_probs) if settings.top_log_probs else []
        for number, one in enumerate(going):
            one.advance(candidates[number], tops[number * n_beams : (number + 1) * n_beams])
        rows, ids = [], []
        for number, one in enumerate(going):
            if not one.done:
                # A row without a beam repeats the last one's; `_candidates` counts it out.
                spare = n_beams - len(one.running)
                rows += [number * n_beams + parent for parent in (*one.parents, *one.parents[-1:] * spare)]
                tokens = [beam.ids[-1] for beam in one.running]
                ids += tokens + tokens[-1:] * spare
        going = [one for one in going if not one.done]
        if not going:
            return
        reader.select(rows)
        logits = reader.read(torch.tensor(ids, device=logits.device))


def _candidates(
    logits: Float[Tensor, "R V"], searches: Sequence[Search], reader: Reader, settings: Settings, n_kept: int
) -> list[list[tuple[float, int, int, float]]]:
    """The best next tokens of each search, over all its beams; see `Search.advance`."""
    n_beams = settings.n_beams
    log_probs = logits.float().log_softmax(-1)
    totals = torch.full((len(searches), n_beams), -torch.inf)
    for row, one in enumerate(searches):
        totals[row, : len(one.running)] = torch.tensor([beam.total for beam in one.running])
    compared = penalised(log_probs, reader.seen, settings.repetition_penalty)
    compared = compared + totals.flatten().to(logits.device)[:, None]
    vocab_size = logits.shape[-1]
    best, places = compared.view(len(searches), -1).topk(min(n_kept, n_beams * vocab_size))
    own = log_probs.view(len(searches), -1).gather(1, places)
    return [
        [
            (total, place // vocab_size, place % vocab_size, log_prob)
            for total, place, log_prob in zip(*row, strict=True)
        ]
        for row in zip(best.tolist(), places.tolist(), own.tolist(), strict=True)
    ]
