"""Questions are honest: no leak across the split, no answer given away by its form or its words."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest

from llm.curation.base import DocumentedObject
from llm.curation.baseline import FirstWord, Learned, Overlap, exam_accuracy, pairs_accuracy, pieces, trigrams
from llm.curation.leaks import copies_of
from llm.curation.near_duplicates import jaccard, shingles
from llm.curation.questions import conversations, describable, is_describable
from llm.curation.siblings import Rule, closed_sets, question_for


def thing(name: str, summary: str, **changes) -> DocumentedObject:
    values = {
        "name": name,
        "kind": "function",
        "signature": "(x)",
        "doc": summary,
        "summary": summary,
        "parent": name.rpartition(".")[0],
        "group": "g",
        "package": "p",
    }
    return DocumentedObject(**{**values, **changes})


@pytest.mark.parametrize(
    "summary",
    [
        "See base class for what this does.",
        "Deprecated: use the other function instead.",
        "In-place version of `abs` on this tensor.",
        "Too short.",
        "Alias for the other function of this module.",
        "norm(x, ord=None) gives the norm of it.",
        "Computes $x^2$ of every element given.",
        "A text with `odd backquote in the middle.",
        "Fetches https://example.org and returns what it holds.",
        "word " * 60,
    ],
)
def test_poor_descriptions_are_left_out(summary: str):
    assert not is_describable(thing("m.norm", summary))


def test_good_descriptions_stay_and_re_exports_go():
    one = thing("m.norm", "Return the length of a vector.")
    assert is_describable(one)
    again = thing("m.deep.norm", "Return the length of a vector!")
    assert describable([again, one]) == [one]
    everywhere = [thing(f"m.c{i}.close{i}", "Close the file behind this.") for i in range(4)]
    assert describable(everywhere) == []


def test_words_of_names():
    assert pieces("getLine_no2 HTTPServer") == pieces("get line no http server")
    assert set(pieces("reads reading read")) == {"read"}
    assert "nor" in trigrams("norm") & trigrams("normalise")


def test_overlap_prefers_shared_rare_words():
    rate = Overlap(pieces, ["Read a file.", "Write a file.", "Read a table.", "Close a file."])
    assert rate("`m.read_table`", "Read a table.") > rate("`m.read_table`", "Read a file.") > 0
    assert rate("`m.other`", "Read a file.") == 0


def test_accuracies_count_ties_as_chance():
    pairs = [
        {"question": "q", "chosen": "aa", "rejected": "b"},
        {"question": "q", "chosen": "b", "rejected": "c"},
    ]
    assert pairs_accuracy(lambda _, answer: len(answer), pairs) == 0.75
    exam = [("q", ["a", "bb", "c", "d"], 1), ("q", ["a", "b", "c", "d"], 3)]
    assert exam_accuracy(lambda _, answer: len(answer), exam) == pytest.approx((1 + 0.25) / 2)


def test_learned_baseline_learns():
    words = ["alpha", "beta", "gamma", "delta", "kappa", "omega"]
    meaning = dict(zip(words, ["first", "second", "third", "fourth", "tenth", "last"], strict=True))
    choice = random.Random(0)
    pairs = []
    for _ in range(200):
        right, wrong = choice.sample(words, 2)
        row = {
            "question": f"`m.{right}`",
            "chosen": f"The {meaning[right]}.",
            "rejected": f"The {meaning[wrong]}.",
        }
        pairs.append(row)
    assert pairs_accuracy(Learned(pairs, seed=0), pairs) > 0.95
    assert pairs_accuracy(FirstWord(pairs), pairs) == 0.5


@pytest.fixture(scope="module")
def family() -> list[DocumentedObject]:
    """Modules whose names often give their descriptions away, as real ones do."""
    choice = random.Random(1)
    vocabulary = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("lmo", "rtu", "nsi", "pka")]
    found = []
    for module in range(24):
        for number in range(12):
            words = choice.sample(vocabulary, 8)
            leaf = "_".join([words[0] if choice.random() < 0.6 else choice.choice(vocabulary), f"x{number}"])
            kind = "class" if number % 2 else "function"  # sets mix the two
            found.append(thing(f"p.m{module}.{leaf}", f"Make {' '.join(words)}.", kind=kind))
    return found


@pytest.mark.parametrize(("size", "chance"), [(2, 0.5), (4, 0.25)])
def test_sets_are_closed_siblings_and_word_matching_stays_weak(family, size: int, chance: float):
    overlap = Overlap(pieces, [one.summary for one in family])
    asked = [(question_for(one), one.summary) for one in family]
    naive = sum(overlap(*pair) > 0 for pair in asked) / len(asked)
    assert naive > 0.5, "the material itself must be easy, or this test shows nothing"
    ceiling = chance + 0.05
    sets = closed_sets(family, Rule(size, ceiling, 1, 1.5, 10_000, 0), [overlap])
    assert len(sets) >= 12
    assert all(len({one.parent for one in members}) == 1 for members in sets)
    assert all(len({one.kind for one in members}) > 1 for members in sets)
    assert max(Counter(one.name for members in sets for one in members).values()) == 1
    exam = [
        (question_for(one), [other.summary for other in members], place)
        for members in sets
        for place, one in enumerate(members)
    ]
    assert exam_accuracy(overlap, exam) <= ceiling
    # what looks at answers alone is at chance exactly: each answer is right once in its set
    assert exam_accuracy(lambda _, answer: len(answer), exam) == pytest.approx(chance)
    assert exam_accuracy(lambda _, answer: hash(answer), exam) == pytest.approx(chance)
    loose = closed_sets(family, Rule(size, 1.0, 1, 1.5, 10_000, 0), [overlap])
    assert len(loose) > len(sets), "the ceiling is what keeps the easy sets out"


def test_sets_depend_on_nothing_but_seed_and_content(family):
    rate = Overlap(pieces, [one.summary for one in family])
    rule = Rule(2, 0.55, 2, 1.35, 100, 0)
    shuffled = random.Random(3).sample(family, len(family))
    assert closed_sets(family, rule, [rate]) == closed_sets(shuffled, rule, [rate])
    assert closed_sets(family, rule, [rate]) != closed_sets(family, Rule(2, 0.55, 2, 1.35, 100, 1), [rate])


def test_conversations():
    rich = thing(
        "m.norm", "Return the length of a vector.",
        parameters=(("ord", "Which norm is taken."),), returns="The length as a float.",
    )  # fmt: skip
    rows = conversations([rich], seed=0, limit=100)
    by_sort = {row["id"].partition("#")[2]: row["messages"] for row in rows}
    assert by_sort["what"] == [
        {"role": "user", "content": "What does `m.norm` do?"},
        {"role": "assistant", "content": "Return the length of a vector."},
    ]
    assert by_sort["parameter"][1]["content"] == "Which norm is taken."
    assert by_sort["returns"][1]["content"] == "The length as a float."
    many = [thing(f"m.f{i}", f"Return item {i} of the list.") for i in range(50)]
    rows = conversations(many, seed=0, limit=50)
    assert [row["id"].endswith("#what") for row in rows] == [True] * 50, "descriptions come first"
    assert len({row["id"] for row in rows}) == 50


def test_near_duplicates_against_all_pairs():
    choice = random.Random(0)
    words = [f"w{i}" for i in range(60)]
    references = [" ".join(choice.choices(words, k=40)) for _ in range(60)]
    texts = [" ".join(choice.choices(words, k=40)) for _ in range(30)]
    for one in references[:30]:
        parts = one.split()
        for _ in range(choice.randrange(6)):
            parts[choice.randrange(40)] = choice.choice(words)
        texts.append(" ".join(parts))
    found = copies_of(references, texts, threshold=0.6, n_words=2)
    missed = wrong = 0
    for text, match in zip(texts, found, strict=True):
        exact = [jaccard(shingles(text, 2), shingles(one, 2)) for one in references]
        missed += max(exact) >= 0.6 and match is None
        wrong += match is not None and exact[match[0]] != match[1]
        wrong += match is not None and match[1] < 0.6
    assert missed <= 1, "bands find 99 in 100 at the threshold"
    assert wrong == 0
    assert sum(match is not None for match in found) > 15
    assert copies_of([], ["a"], threshold=0.5, n_words=2) == [None]
    assert copies_of(["a"], [""], threshold=0.5, n_words=2) == [None]


def test_split_by_group():
    import polars as pl

    from llm.curation.split import HashSplit

    groups = [f"g{i % 200}" for i in range(4000)]
    frame = pl.DataFrame({"id": [f"d{i}" for i in range(4000)], "group": groups})
    held = HashSplit(0.2, 0).held_out(frame)
    sides: defaultdict[str, set[bool]] = defaultdict(set)
    for group, side in zip(groups, held, strict=True):
        sides[group].add(side)
    assert all(len(found) == 1 for found in sides.values())
    assert 0.15 < held.mean() < 0.22
    single = HashSplit(0.1, 0).held_out(frame.drop("group"))
    assert 0.08 < single.mean() < 0.12
    fewer = HashSplit(0.1, 0).held_out(frame.drop("group").head(100))
    assert fewer.equals(single.head(100)), "further documents do not move the ones before"
    assert HashSplit(0.01, 0).held_out(frame.drop("group").head(2)).sum() == 1
