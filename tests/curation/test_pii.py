from __future__ import annotations

import base64
import ipaddress
import json
import pickle
import random
import sys
import time

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.curation.base import judge
from llm.curation.pii import Pii
from llm.curation.pii_kinds import KINDS, find, folded, iban, luhn, ssn
from llm.types import ConfigError
from tests.curation.test_steps import corpus

# A token of the right form that nobody was given; in pieces, so that no scanner takes it for a leak.
JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"1234567890"}', b"0123456789abcdef")
)
REAL = {
    "email": ["ann.lee+news@mail.example.org", "jürgen@müller-söhne.de", "иван@почта.рф", "O_Neil@x.co"],
    "phone": [
        "+49 30 901820",
        "+44 (0)20 7946 0958",
        "+8613812345678",
        "0033 1 70 18 99 00",
        "(415) 555-2671",
        "415-555-2671",
        "1 415 555 2671",
        "+1-415-555-2671",
        "+966 50 123 4567".translate({48 + n: 0x660 + n for n in range(10)}),  # in Arabic digits,
    ],
    "ip": ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2001:4860:4860:0:0:0:0:8888"],
    "credit_card": ["4111 1111 1111 1111", "5555555555554444", "3782-822463-10005", "6011 1111 1111 1117"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "NO93 8601 1117 947"],
    "us_ssn": ["536-22-1234", "SSN: 536221234"],
    "secret": [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "gh" + "p_" + "a1B2" * 9,
        "xox" + "b-123456789012-abcdefGHIJ",
        "AI" + "za" + "Sy0_-" * 7,
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----",
        JWT,
    ],
}
LOOK_ALIKES = [
    "version 8.8.8.8",
    "v1.2.3.4",
    "Chrome/91.0.44.124",
    "section 4.1.2.3",
    "192.168.0.1",
    "10.0.0.7",
    "127.0.0.1",
    "fe80::1",
    "12:30:45",
    "std::vector::size",
    "ISBN 978-3-16-148410-0",
    "ISBN 9783161484100",
    "4111 1111 1111 1112",
    "order 1234567890123456",
    "2023-11-25 22:41:09",
    "25.11.2026",
    "d41d8cd98f00b204e9800998ecf8427e",
    "3.14159265358979",
    "1,234,567,890",
    "000-12-3456",
    "666-12-3456",
    "900-12-3456",
    "536-00-1234",
    "078-05-1120",
    "DE89 3704 0044 0532 0130 01",
    "icon@2x.png",
    "git@github.com:owner/name.git",
    "x = a @ b.mean()",
    "@user",
    "page 415-555",
    "1990-2000 415 5552671",
    "911-911-9111",
    "+999 1234 5678",
    "2 + 3000000000 = 3000000002",
    "eyJhbGciOiJub3RoaW5n.eyJabcdefghijk.abcdefghijklmnopqrst",
    "task-force-of-the-many-hundred-people",
    "0x1F600",
    "1/3/2024 4:05",
    "AB12 CDEF",
    "8.8.0.0/16",
    "1.0.0.127.in-addr.arpa",
    "+35236450.6",
]
FRAMES = [
    "{}",
    "Write to {}, please.",
    "«{}»",
    "联系{}。",
    "اتصل على {} الآن",
    "a ({}) b",
    'x="{}";',
    "{}\n{}",
]


def found(text: str, **settings) -> list[tuple[str, str]]:
    places = Pii(**settings).tag(pl.Series([text]))["_pii"][0]
    return [(kind, text[begin:end]) for begin, end, kind in json.loads(places or "[]")]


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, value) for kind, values in REAL.items() for value in values]
)
def test_finds(kind: str, value: str) -> None:
    expected = (kind, value.removeprefix("SSN: "))
    for frame in FRAMES:
        assert found(frame.format(value, value)) == [expected] * frame.count("{}"), frame


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("taro@example.co.jp（代表）", "taro@example.co.jp"),  # noqa: RUF001
        ("taro@example.to（代表）", "taro@example.to"),  # noqa: RUF001
        ("john.doe@posts.to(work)", "john.doe@posts.to"),
        ("john@posts.org(work)", "john@posts.org"),
        ("+44 20 7946 0958 2024-01-05", "+44 20 7946 0958"),
        ("+49 30 123456 12.5.2024", "+49 30 123456"),
        ("+44 20 7946 0958 3 times", "+44 20 7946 0958"),
        ("+1 415 555 2671 2024-01-05", "+1 415 555 2671"),
        ("+966 50 123 456 7", "+966 50 123 456"),
    ],
)
def test_what_stands_behind_is_no_part_of_it(text: str, value: str) -> None:
    assert [one for _, one in found(text)] == [value]


def test_what_is_cut_off_is_looked_through_again() -> None:
    numbers = ["+1 415 555 2671", "212 555 0123"]
    assert found(" ".join(numbers)) == [("phone", one) for one in numbers]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("phone", "call +1" + "2" * 500 + "x"),
        ("phone", "bits 001" + "01" * 500 + " end"),
        ("phone", "+12-(3)-4 " * 3000 + "x"),
        ("secret", "-----BEGIN PRIVATE KEY-----\n" * 20_000),
        ("secret", "sk-" * 20_000),
        ("email", "a@" + "a." * 20_000 + "1"),
        ("us_ssn", "SSN" + " " * 20_000 + "z"),
        ("email", " ".join(f"user{number}@posts.org" for number in range(20_000))),
    ],
)
def test_no_text_takes_longer_than_its_length(kind: str, text: str) -> None:
    began = time.process_time()
    find(text, [kind])
    assert time.process_time() - began < 5


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_look_alikes(text: str) -> None:
    assert found(f"Then {text} came.") == []


def test_precision_and_recall_on_a_seeded_set() -> None:
    rng = random.Random(0)
    pool = [(kind, value) for kind, values in REAL.items() for value in values]
    n_found = n_true = n_both = 0
    for _ in range(300):
        truth = rng.sample(pool, rng.randint(0, 3))
        parts = [value for _, value in truth] + rng.sample(LOOK_ALIKES, 5)
        rng.shuffle(parts)
        got = found("; and ".join(parts))
        want = [(kind, value.removeprefix("SSN: ")) for kind, value in truth]
        n_found, n_true = n_found + len(got), n_true + len(want)
        n_both += sum(one in got for one in want)
    assert n_both / n_true == 1.0
    assert n_both / n_found == 1.0


@given(st.text("0123456789", min_size=1, max_size=24))
def test_luhn(digits: str) -> None:
    doubled = "".join(str(int(d) * 2) if n % 2 else d for n, d in enumerate(reversed(digits)))
    assert luhn(digits) == (sum(map(int, doubled)) % 10 == 0)
    check = next(c for c in "0123456789" if luhn(digits + c))
    assert not any(luhn(digits + c) for c in "0123456789" if c != check)


@given(st.text("0123456789", min_size=18, max_size=18), st.integers(1, 96))
def test_iban(account: str, off: int) -> None:
    # check digits by remainders, digit by digit, of account, DE as 1314 and 00
    rest = 0
    for digit in account + "131400":
        rest = (rest * 10 + int(digit)) % 97
    check = 98 - rest
    assert iban(f"DE{check:02}{account}")
    assert not iban(f"DE{(check + off - 2) % 97 + 2:02}{account}")
    assert not iban(f"DE{check:02}{account[:-1]}")


@given(st.integers(0, 999), st.integers(0, 99), st.integers(0, 9999))
def test_ssn(area: int, group: int, serial: int) -> None:
    valid = 0 < area < 900 and area != 666 and group > 0 and serial > 0
    advertised = (area, group, serial) in ((78, 5, 1120), (219, 9, 9999))
    assert ssn(f"{area:03}", f"{group:02}", f"{serial:04}") == (valid and not advertised)


@given(st.ip_addresses())
def test_ip_as_the_standard_library_says(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    public = address.is_global and not address.is_multicast
    if address.version == 6:
        public &= int(address) >> 125 == 1
    assert found(f"from {address} to") == ([("ip", str(address))] if public else [])


texts = st.lists(
    st.one_of(
        st.sampled_from([value for values in REAL.values() for value in values]),
        st.sampled_from(LOOK_ALIKES),
        st.text(max_size=12),
    ),
    max_size=6,
).map(" ".join)


@given(texts, st.sampled_from(["placeholder", "fake"]))
def test_redaction_changes_nothing_else_and_is_done_once(text: str, replacement: str) -> None:
    step = Pii(replacement=replacement)
    judged = judge(step, corpus([text]))
    redacted = judged["text"][0]
    places = json.loads(step.tag(pl.Series([text]))["_pii"][0] or "[]")
    assert judged["n_pii"][0] == len(places)
    assert [begin for begin, *_ in places] == sorted(begin for begin, *_ in places)
    rest = redacted
    for piece in _between(text, places):
        at = rest.find(piece)
        assert at >= 0
        rest = rest[at + len(piece) :]
    assert judge(step, corpus([redacted]))["text"][0] == redacted


def _between(text: str, places: list) -> list[str]:
    ends = [0, *(end for _, end, _ in places)]
    begins = [*(begin for begin, *_ in places), len(text)]
    return [text[end:begin] for end, begin in zip(ends, begins, strict=True)]


def test_redacts_and_says_what() -> None:
    text = "שלחו אל ann@mail.org או 8.8.8.8 — תודה 🙏"
    judged = judge(Pii(), corpus([text, "nothing here"]))
    assert judged["text"].to_list() == ["שלחו אל <EMAIL> או <IP> — תודה 🙏", "nothing here"]
    assert judged["reason"].to_list() == ["redacted_email+ip", None]
    assert judged["n_pii"].to_list() == [2, 0]
    assert judged["score"].to_list() == [2.0, None]
    only = judge(Pii(kinds=["ip"]), corpus([text]))
    assert only["text"][0] == text.replace("8.8.8.8", "<IP>")


@pytest.mark.parametrize(
    "cut",
    [
        "-----BEGIN EC PRIVATE KEY----- MHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1a AwEHoUQD rest",
        "4111 1111 1111 1",
        "+44 20 7946 09",
        "DE89 3704 0044 05",
        "+966 50 123 4".translate({48 + n: 0x660 + n for n in range(10)}),
        "gh" + "p_" + "a1B2" * 5,
    ],
)
def test_an_excerpt_shows_nothing_that_its_end_has_cut(cut: str) -> None:
    masked = Pii().mask(pl.Series(["It is", f"It is {cut}", f"At ann@mail.org: {cut}"]))
    end = "<SECRET>" if "BEGIN" in cut else ""
    assert masked.to_list() == ["It ", f"It is {end}", f"At <EMAIL>: {end}"]


def test_removes_above_the_limit_and_tags() -> None:
    many = "a@mail.org b@mail.org c@mail.org"
    judged = judge(Pii(max_found=2), corpus([many, "a@mail.org"]))
    assert judged["keep"].to_list() == [False, True]
    assert judged["text"].to_list() == [many, "<EMAIL>"]
    assert judged["reason"].to_list() == ["pii_email", "redacted_email"]
    removed = judge(Pii(mode="remove"), corpus([many, "clean"]))
    assert removed["keep"].to_list() == [False, True]
    tagged = judge(Pii(mode="tag"), corpus([many, "clean"]))
    assert tagged["keep"].all()
    assert tagged["text"].to_list() == [many, "clean"]
    assert tagged["n_pii"].to_list() == [3, 0]


def test_fakes_are_the_same_for_the_same_value() -> None:
    text = "a@mail.org, b@mail.org, a@mail.org"
    first, second, third = judge(Pii(replacement="fake"), corpus([text]))["text"][0].split(", ")
    assert first == third != second
    assert first.endswith("@example.invalid")
    assert first not in judge(Pii(replacement="fake", salt="s"), corpus([text]))["text"][0]
    secret = judge(Pii(replacement="fake"), corpus([REAL["secret"][0]]))
    assert secret["text"][0] == "<SECRET>"


def test_every_match_has_its_hint() -> None:
    for kind, values in REAL.items():
        for value in values:
            assert pl.Series([folded(value)]).str.contains(KINDS[kind].hint)[0], value


@given(st.text())
def test_folding_keeps_places(text: str) -> None:
    assert len(folded(text)) == len(text)


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError) as caught:
        Pii(kinds=[])
    assert caught.value.key == "kinds"
    with pytest.raises(ConfigError) as caught:
        Pii(presidio={"modle": "x"})
    assert caught.value.key == "presidio.modle"


def test_without_presidio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[pii\]'"):
        Pii(presidio={}).prepare(lambda _: None)


@pytest.mark.slow
def test_presidio_finds_names(tmp_path) -> None:
    pytest.importorskip("presidio_analyzer")
    spacy = pytest.importorskip("spacy")
    # a spaCy model of one rule, for models with weights are not on the package index
    model = spacy.blank("en")
    model.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ann Lee"}])
    model.to_disk(tmp_path / "model")
    step = Pii(presidio={"model": str(tmp_path / "model")})
    step.prepare(lambda _: None)
    step = pickle.loads(pickle.dumps(step))
    judged = judge(step, corpus(["Ask Ann Lee at ann@mail.org."]))
    assert judged["text"][0] == "Ask <PERSON> at <EMAIL>."
    with pytest.raises(ConfigError) as caught:
        Pii(presidio={"model": "no_such_model"}).prepare(lambda _: None)
    assert caught.value.key == "presidio.model"
