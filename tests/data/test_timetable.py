"""Phases of a mixture: each domain's counter goes on, whatever the weights become."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.data.timetable import Phase, Timetable
from llm.types import ConfigError

PHASES = [
    Phase({"a": 3, "b": 1, "c": 0}, until_step=5),
    Phase({"a": 0, "b": 1, "c": 1}, until_tokens=700),
    Phase({"a": 1, "b": 1, "c": 2}),
]


@given(batch_size=st.integers(1, 9), number=st.integers(0, 400))
def test_counters_go_on_over_phases(batch_size: int, number: int) -> None:
    table = Timetable(PHASES, batch_size, seq_len=10)
    turns = [table.place(n) for n in range(number)]
    assert Counter(name for name, _ in turns) == table.counts(number)
    for domain in "abc":
        mine = [before for name, before in turns if name == domain]
        assert mine == list(range(len(mine))), "none is left out and none comes twice"


def test_phases_end_with_a_whole_step() -> None:
    table = Timetable(PHASES, batch_size=4, seq_len=10)
    # 5 steps of 4; then 700 tokens are 17.5 steps of 40
    assert [table.phase(number) for number in (0, 19, 20, 71, 72, 10**9)] == [0, 0, 1, 1, 2, 2]
    assert table.counts(20) == {"a": 15, "b": 5}
    assert table.counts(72) == {"a": 15, "b": 5 + 26, "c": 26}
    assert table.counts(72 + 40) == {"a": 25, "b": 41, "c": 46}


def test_tokens_and_steps_that_contradict_each_other() -> None:
    phases = [Phase({"a": 1}, until_step=5), Phase({"a": 1}, until_tokens=100), Phase({"a": 1})]
    Timetable(phases, 2, 10)
    with pytest.raises(ConfigError, match="at step 5") as caught:
        Timetable(phases, 4, 10)
    assert caught.value.key == "phases"


def test_what_is_saved_is_the_same_timetable() -> None:
    table = Timetable(PHASES, 4, 10)
    again = Timetable.restored(table.plain())
    assert [again.place(n) for n in range(300)] == [table.place(n) for n in range(300)]


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (3, "phases=[{until_step:3,weights:{a:3,b:1,c:0}}]"),
        (5, "phases=[{until_step:5,weights:{a:3,b:1,c:0}}]"),
        (9, "phases=[{until_step:5,weights:{a:3,b:1,c:0}},{until_step:9,weights:{a:0,b:1,c:1}}]"),
        (
            30,
            "phases=[{until_step:5,weights:{a:3,b:1,c:0}},{until_step:18,weights:{a:0,b:1,c:1}},"
            "{until_step:30,weights:{a:1,b:1,c:2}}]",
        ),
    ],
)
def test_the_past_as_one_types_it(step: int, text: str) -> None:
    assert Timetable(PHASES, 4, 10).written(step) == text
