from __future__ import annotations

import pytest

from llm.curation.fineweb import FineWebQuality
from tests.curation.judging import measures, reasons


def lines(n: int, length: int, ends: int = 0, start: int = 0) -> list[str]:
    """Different lines of some length, the first `ends` of them with a full stop."""
    return [
        f"{i:03} {'word ' * 20}"[: length - 1] + ("." if i - start < ends else "x")
        for i in range(start, start + n)
    ]


AT_THE_BOUND = {
    "few_punctuated_lines": (lines(25, 60, ends=3), lines(25, 60, ends=2)),
    "short_lines": (
        [*lines(67, 30, ends=67), *lines(33, 60, start=67)],
        [*lines(68, 30, ends=68), *lines(32, 60, start=68)],
    ),
    "repeated_line_chars": (
        [*lines(99, 60, ends=99), lines(1, 60, ends=1)[0]],
        [*lines(98, 60, ends=98), lines(1, 60, ends=1)[0]],
    ),
}


@pytest.mark.parametrize("rule", sorted(AT_THE_BOUND))
def test_each_rule_at_its_bound(rule):
    inside, outside = ("\n".join(part) for part in AT_THE_BOUND[rule])
    assert reasons(FineWebQuality(), inside, outside) == [None, rule]


def test_line_breaks_at_their_bound():
    step = FineWebQuality(max_short_lines=1)
    inside = "\n".join(["the tea. "] * 1 + [f"a{i} b{i}." for i in range(3)])  # 3 breaks, 12 tokens
    assert measures(step, inside)["line_breaks"] == 3 / 12
    assert reasons(step, "\n\n".join(["one two three four five six seven. eight."] * 1 + ["nine."])) == [None]
    text = "one two three four five six seven eight.\n\n\nnine"  # 3 breaks, 10 tokens
    assert reasons(step, text, text + "\n") == [None, "line_breaks"]


def test_what_a_short_line_is_belongs_to_the_key():
    assert FineWebQuality(short_line_chars=20).tag_key() != FineWebQuality().tag_key()
    assert FineWebQuality(max_short_lines=0.5).tag_key() == FineWebQuality().tag_key()
    text = "\n".join(lines(4, 25))
    assert measures(FineWebQuality(short_line_chars=24), text)["short_lines"] == 0
    assert measures(FineWebQuality(short_line_chars=25), text)["short_lines"] == 1


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0), (" \n\t", 0), ("...", 1), ("一つの文。\n二つ", 0.5), ("نص هنا؟\nنص.", 1), ("end. \nend.", 0.5)],
)
def test_marks_of_all_scripts_end_a_line(text, share):
    assert measures(FineWebQuality(), text)["punctuated_lines"] == share


def test_empty_texts_are_removed():
    assert reasons(FineWebQuality(), "", "\n \n") == ["few_punctuated_lines"] * 2
