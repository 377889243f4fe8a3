"""Conversations about documented objects: the question of a reader, the answer of the documentation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from llm.curation.base import DocumentedObject, order_key
from llm.curation.near_duplicates import WORD
from llm.curation.siblings import question_for

MIN_WORDS, MAX_WORDS = 4, 45

TRIVIAL = re.compile(
    r"see\b|deprecated|alias\b|an alias|same as|refer to|in-place version|internal|todo|fixme|inherit|"
    r"(this is )?(the )?base class\.|overrid|undocumented|not implemented|private|return self\b|please\b|"
    r"(a |an )?(version|variant) of `|scalar (method|attribute) identical|wrapper (for|around)\b|"
    r"copied from|equivalent to `|compatible with|\.\. |placeholder|similar to|like `|as `|identical to",
    re.IGNORECASE,
)
MARKUP_LEFT = re.compile(
    r"[{}\\<>|]|\.\. |::|>>>|https?://|\bTODO\b|:\w+:|==|^\W|[^\x00-\x7f]|`\s*`|\$|#|\*\*\w+\*\*"
)
ELSEWHERE = re.compile(r"\bsee (`|also|the|docs)|for (more )?(details|information)|super\(\)", re.IGNORECASE)
CALL = re.compile(r"\w+\([^)]*[,=]")


def is_describable(one: DocumentedObject) -> bool:
    """True when the summary says something of this very object, in plain English words."""
    text, words = one.summary, one.summary.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS or MARKUP_LEFT.search(text) or TRIVIAL.match(text):
        return False
    if ELSEWHERE.search(text):
        return False
    if text.count("`") % 2 or text.count("(") != text.count(")") or text.count('"') % 2:
        return False
    if text.lower().startswith(f"{one.leaf.lower()}(") or CALL.match(text):
        return False  # a signature where the description should be
    letters = sum(letter.isalpha() or letter == " " for letter in text)
    return letters >= 0.8 * len(text)


def describable(objects: Iterable[DocumentedObject]) -> list[DocumentedObject]:
    """Objects worth asking about, each once: of equal name and description the shortest path stays.

    A description shared by more than three objects ("Close the file.") belongs to none in particular.
    """
    chosen: dict[tuple[str, str], DocumentedObject] = {}
    for one in sorted(objects, key=lambda o: (o.name.count("."), o.name)):
        if is_describable(one):
            chosen.setdefault((one.leaf, normalised(one.summary)), one)
    shared = Counter(text for _, text in chosen)
    kept = [one for (_, text), one in chosen.items() if shared[text] <= 3]
    return sorted(kept, key=lambda one: one.name)


def normalised(text: str) -> str:
    """Words of a text in small letters: what makes two descriptions the same."""
    return " ".join(WORD.findall(text.lower()))


Asked = tuple[str, str, str]
"""(sort of question, question, answer)."""


def conversations(objects: Sequence[DocumentedObject], *, seed: int, limit: int) -> list[dict[str, object]]:
    """Rows `{"id", "messages"}`, at most `limit`, in a seeded order; descriptions come before the rest."""
    rows: list[tuple[int, int, dict[str, object]]] = []
    for one in objects:
        for place, (sort, question, answer) in enumerate(_asked(one, seed)):
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            row: dict[str, object] = {"id": f"{one.name}#{sort}", "messages": messages}
            rows.append((min(place, 1), order_key(seed, one.name, sort), row))
    # descriptions first, then the rest by chance, until the limit; then all of them shuffled
    kept = sorted(rows, key=lambda entry: entry[:2])[:limit]
    return [row for _, _, row in sorted(kept, key=lambda entry: order_key(seed + 1, entry[1]))]


def _asked(one: DocumentedObject, seed: int) -> Iterator[Asked]:
    """Everything asked about an object; the first is its description."""
    name = f"`{one.name}`"
    yield "what", question_for(one), one.summary
    chance = order_key(seed, one.name, "sorts")
    for build in (_rephrased, _which, _parameter, _result, _signature):
        found = build(one, name, chance)
        if found:
            yield found


def _pick(options: Sequence[str], chance: int) -> str:
    return options[chance % len(options)]


def _rephrased(one: DocumentedObject, name: str, chance: int) -> Asked | None:
    if chance % 5 > 1:
        return None
    noun = one.kind
    options = (
        f"Explain {name} in one sentence.",
        f"What is {name} for?",
        f"Describe the {noun} {name}.",
        f"In {one.package if one.package != 'stdlib' else 'Python'}, what is the {noun} {name}?",
        f"I found {name} in some code. What does it do?",
    )
    return "explain", _pick(options, chance // 7), one.summary


def _which(one: DocumentedObject, name: str, chance: int) -> Asked | None:
    if chance % 3:
        return None
    options = (
        f"Which {one.kind} of `{one.parent}` fits this description? {one.summary}",
        f"Name the {one.kind} in `{one.parent}` documented as: {one.summary}",
    )
    return "which", _pick(options, chance // 7), f"{name}."


def _parameter(one: DocumentedObject, name: str, chance: int) -> Asked | None:
    fitting = [entry for entry in one.parameters if _is_plain(entry[1]) and entry[0] != "self"]
    if not fitting:
        return None
    parameter, described = fitting[chance % len(fitting)]
    options = (
        f"What is the parameter `{parameter}` of {name}?",
        f"In {name}, what does `{parameter}` mean?",
    )
    return "parameter", _pick(options, chance // 7), _sentence(described)


def _result(one: DocumentedObject, name: str, chance: int) -> Asked | None:
    if not _is_plain(one.returns) or len(one.returns.split()) < MIN_WORDS:
        return None
    return (
        "returns",
        _pick((f"What does {name} return?", f"What is the result of {name}?"), chance // 7),
        one.returns,
    )


def _signature(one: DocumentedObject, name: str, chance: int) -> Asked | None:
    if len(one.signature) < 4 or len(one.signature) > 120 or chance % 4:
        return None
    options = (f"What is the signature of {name}?", f"How is {name} called?")
    return "signature", _pick(options, chance // 7), f"`{one.leaf}{one.signature}`"


def _is_plain(text: str) -> bool:
    return bool(text) and not MARKUP_LEFT.search(text) and not text.count("`") % 2 and len(text) <= 240


def _sentence(text: str) -> str:
    text = text.strip().rstrip(":;,")
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
