"""What personal data and secrets look like, and how a look-alike is told apart.

A kind has a pattern and, since a pattern alone takes order numbers for credit cards, a check of what it
found: checksums, ranges that were never given out, words around it. Patterns know ASCII's digits only;
`folded` writes those of other scripts in ASCII, one for one, so that places stay the same.

No pattern may take longer than in proportion to the text, whatever the text: a repeat within a repeat is
possessive, or what may follow it cannot be in it.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import sys
import unicodedata
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

Span = tuple[int, int]


class Kind(NamedTuple):
    """One kind.

    hint: a pattern for polars (no lookaround) that every folded text with a match contains. check: which part
    of a match in the folded text is meant, None for a look-alike; it gets the text as it is, too.
    """

    hint: str
    pattern: re.Pattern[str]
    check: Callable[[re.Match[str], str], Span | None]


def _whole(is_one: Callable[[re.Match[str]], bool]) -> Callable[[re.Match[str], str], Span | None]:
    """The check of a kind that is the whole match or nothing."""
    return lambda match, _: match.span() if is_one(match) else None


@cache
def _table() -> dict[int, str]:
    digits = {
        code: str(unicodedata.decimal(chr(code)))
        for code in range(128, sys.maxunicode + 1)
        if unicodedata.category(chr(code)) == "Nd"
    }
    return digits | {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full-width ASCII


def folded(text: str) -> str:
    """The text with digits of every script, and full-width letters, in ASCII; of the same length."""
    return text if text.isascii() else text.translate(_table())


# ----------------------------------------------------------------------------- checks of digits


def luhn(digits: str) -> bool:
    """The checksum of card numbers (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def issued(digits: str) -> bool:
    """Whether a card network uses numbers of this beginning and length."""
    n, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    return (
        (digits[0] == "4" and n in (13, 16, 19))  # Visa
        or (n == 16 and (51 <= two <= 55 or 2221 <= four <= 2720))  # Mastercard
        or (n == 15 and two in (34, 37))  # American Express
        or (n == 16 and (four == 6011 or two == 65 or 644 <= three <= 649))  # Discover
        or (n == 14 and (two in (36, 38, 39) or 300 <= three <= 305))  # Diners Club
        or (n == 16 and 3528 <= four <= 3589)  # JCB
        or (16 <= n <= 19 and two == 62)  # UnionPay
    )


def _card(match: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", match[0])
    return luhn(digits) and issued(digits)


# Length of an IBAN by country (SWIFT's IBAN registry).
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD FK", 19: "MK SI",  # codespell:ignore fo
        20: "AT BA EE KZ LT LU XK MN", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG DZ", 25: "LY PT ST", 26: "IS TR",
        27: "BF BI CM DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SN SV", 29: "BR EG PS QA UA",
        30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def iban(text: str) -> bool:
    """The length of its country and the checksum (ISO 13616, ISO 7064 mod 97-10)."""
    compact = text.replace(" ", "")
    if _IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 == 1


def ssn(area: str, group: str, serial: str) -> bool:
    """Whether the US Social Security Administration may have given it out (20 CFR 422.103; RM 10201.035)."""
    if (area, group, serial) in (("078", "05", "1120"), ("219", "09", "9999")):  # printed in advertisements
        return False
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


# ----------------------------------------------------------------------------- telephone

# Calling codes (ITU-T E.164) have one digit, two, or three of which these are the first two.
_ONE = "1 7"
_TWO = (
    "20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 "
    "81 82 84 86 90 91 92 93 94 95 98"
)
_THREE = "21 22 23 24 25 26 29 35 37 38 42 50 59 67 68 69 80 85 87 88 96 97 99"
_CODES = frozenset(f"{_ONE} {_TWO} {_THREE}".split())


def _phone(match: re.Match[str], _: str) -> Span | None:
    """Without numbers behind it that are not part of it: a date, or `3 times`."""
    found = match[0]
    tried = [found, *(found[: space.start()] for space in re.finditer(r"[ \u00a0]+", found))]
    tried[1:] = tried[:0:-1]  # the longest first, but without a last digit that stands alone
    if re.search(r"[ \u00a0]\d$", found):
        tried[:2] = tried[1::-1]
    end = next((len(one) for one in tried if _is_phone(one)), None)
    return None if end is None else (match.start(), match.start() + end)


def _is_phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    if not text.startswith(("+", "00")):
        return len(digits) >= 10 and _north_american(digits[-10:])
    if text.startswith("00"):
        digits = digits[2:]
    if digits.startswith("1"):
        return len(digits) == 11 and _north_american(digits[1:])
    if re.fullmatch(r"\+\d+[.]\d+", text):  # a number with a sign
        return False
    known = digits[0] in _CODES or digits[:2] in _CODES
    return known and digits[:3] != "999" and 8 <= len(digits) <= 15


def _north_american(digits: str) -> bool:
    """Area code and exchange begin with 2 to 9, and neither is a service code such as 911."""
    area, exchange = digits[:3], digits[3:6]
    return all(part[0] in "23456789" and part[1:] != "11" for part in (area, exchange))


# ----------------------------------------------------------------------------- network addresses

_VERSION = re.compile(
    r"(?:\b(?:v|ver|version|release|rev|revision|build|firmware|driver|section|sec|chapter|clause|figure|fig"
    r"|table|article|paragraph|oid|item|appendix|rule)s?\.?\s*[:=#]?\s*\"?|§\s*|[A-Za-z][\w.+-]*/)$",
    re.IGNORECASE,
)
"""What stands before a number of four parts that is no address: ``version 8.8.8.8``, ``Chrome/9.0.1.2``."""


def _ip(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    if address.version == 4 and _VERSION.search(match.string[max(0, match.start() - 24) : match.start()]):
        return False
    # of IPv6 only this part is given out so far; what ends in /24 is a network and nobody's address
    given_out = address.version == 4 or address in ipaddress.ip_network("2000::/3")
    network = re.match(r"/\d|\.in-addr", match.string[match.end() : match.end() + 8])
    return address.is_global and given_out and not address.is_multicast and not network


# ----------------------------------------------------------------------------- mail, secrets

_FILES = ("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "html", "py", "invalid")
_DOMAINS = re.compile(
    r"com|org|net|edu|gov|mil|info|biz|io|ac|au|be|br|ca|ch|cn|cz|de|dk|es|eu|fi|fr|gr|hu|ie|il|in|it|jp|kr|mx"
    r"|nl|nz|pl|pt|ro|ru|se|sg|tr|tw|ua|uk|us|za"
)


def _email(match: re.Match[str], text: str) -> Span | None:
    name, last, after = match[0].partition("@")[0], match[0].rpartition(".")[2].lower(), match.end()
    # a@b.mean(), git@host:path; a full-width bracket is prose
    call = text[after : after + 1] == "(" and "." not in name and not _DOMAINS.fullmatch(last)
    code = call or (name == "git" and text[after : after + 1] == ":")
    good = last not in _FILES and not code and ".." not in match[0] and len(match[0]) <= 254
    return match.span() if good else None


def _secret(match: re.Match[str]) -> bool:
    if not match[0].startswith("eyJ"):
        return True
    header = match[0].partition(".")[0]
    try:
        return "alg" in json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, RecursionError):
        return False


_SECRETS = (
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-(?!----(?:BEGIN|END) )){0,20000}+"
    r"-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS, the key's id
    r"(?i:(?<=secret_access_key)|(?<=secretaccesskey)|(?<=aws_secret_key))[\"' ]{0,3}[:=][\"' ]{0,3}"
    r"[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",  # AWS, the key
    r"(?<![A-Za-z0-9])(?:gh[opsur]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})"
    r"(?![A-Za-z0-9])",
    r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20,}",
    r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"https://hooks\.slack\.com/services/T[A-Za-z0-9_]+/B[A-Za-z0-9_]+/[A-Za-z0-9_]+",
    r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])",  # Google
    r"(?<![A-Za-z0-9])[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    # OpenAI, Anthropic
    r"(?<![A-Za-z0-9])sk-(?:proj-|svcacct-|ant-)?(?=[A-Za-z_-]{0,99}[0-9])[A-Za-z0-9_-]{32,}",
    r"(?<![A-Za-z0-9])hf_[A-Za-z]{34}(?![A-Za-z0-9])",
    r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}",  # JWT, RFC 7519
)

_LETTER = r"A-Za-z0-9\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"

KINDS: dict[str, Kind] = {
    "secret": Kind(
        r"PRIVATE KEY|AKIA|ASIA|ABIA|ACCA|(?i:secret_?access_?key|aws_secret_key)|gh[opsur]_|github_pat_"
        r"|glpat-|xox|hooks\.slack|AIza|[rs]k_|sk-|hf_|eyJ",
        re.compile("|".join(_SECRETS)),
        _whole(_secret),
    ),
    "email": Kind(
        r"[\p{L}0-9._%+-]@[\p{L}0-9]",
        re.compile(
            rf"(?<![{_LETTER}._%+-])[{_LETTER}][{_LETTER}._%+-]{{0,63}}@"
            rf"(?:[{_LETTER}](?:[{_LETTER}-]{{0,61}}[{_LETTER}])?\.)+[A-Za-z\u00c0-\u024f\u0400-\u04ff]{{2,24}}"
            rf"(?![{_LETTER}@])"
        ),
        _email,
    ),
    "iban": Kind(
        r"[A-Z]{2}[0-9]{2}",
        re.compile(
            r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])", re.A
        ),
        _whole(lambda match: iban(match[0])),
    ),
    "credit_card": Kind(
        r"[0-9](?:[ -]?[0-9]){12}",
        re.compile(
            r"(?<![\w.,/=-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5}|\d{13,19})"
            r"(?![\w=-])(?![.,/]\d)",
            re.A,
        ),
        _whole(_card),
    ),
    "us_ssn": Kind(
        r"[0-9]{3}-[0-9]{2}-[0-9]{4}|(?i:ssn|social security)",
        re.compile(
            r"(?<![\w-])(\d{3})-(\d{2})-(\d{4})(?![\w-])"
            r"|(?i:\bSSN|\bsocial security (?:number|no\.?))\W{0,4}(?:is\s)?\s*"
            r"(?P<plain>\d{3} ?\d{2} ?\d{4})(?!\w)",
            re.A,
        ),
        lambda match, _: _ssn(match),
    ),
    "ip": Kind(
        r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[0-9A-Fa-f]?:[0-9A-Fa-f]{0,4}:",
        re.compile(
            rf"(?<![\w.:-])(?:{_OCTET}\.){{3}}{_OCTET}(?![\w-])(?!\.\d)"
            r"|(?<![\w.:])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:]{6,39}(?![\w.])(?!:)",
            re.A,
        ),
        _whole(_ip),
    ),
    "phone": Kind(
        r"(?:\+|00)[ (]{0,2}[0-9](?:[ ().\-/\u00a0]{0,3}[0-9]){6}|[0-9]{3}\)?[ .\-]?[0-9]{3}[ .\-][0-9]{4}",
        re.compile(
            r"(?<![\w+.,/=-])(?:\+|(?<!\d )00)[1-9]\d{0,3}"
            r"(?:[ .\-/\u00a0]{0,2}(?:\(\d{1,5}\)|\d{1,15}+)){1,7}"
            r"(?![\w=])(?![.,/-]\d)"
            r"|(?<![\w+.,/=-])(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}([.-])|[2-9]\d{2}( ))"
            r"[2-9]\d{2}(?:\1|\2|[.-])\d{4}(?![\w=-])(?![.,/]\d)",
            re.A,
        ),
        _phone,
    ),
}  # fmt: skip
"""By name, the surer first: of two that overlap the earlier in this order is taken."""


def _ssn(match: re.Match[str]) -> Span | None:
    if match[1]:
        return match.span() if ssn(match[1], match[2], match[3]) else None
    digits = match["plain"].replace(" ", "")
    return match.span("plain") if ssn(digits[:3], digits[3:5], digits[5:]) else None


FOREIGN = r"[\p{Nd}&&[^0-9]]|[\uff01-\uff5e]"
"""A hint, for polars, that `folded` changes a text: whether any kind's hint is in it, is then open."""


class Found(NamedTuple):
    """Something found in a text: places of its characters, and its kind."""

    begin: int
    end: int
    kind: str


def find(text: str, kinds: Sequence[str]) -> list[Found]:
    """Everything of these kinds, in the order of the text, no two overlapping."""
    plain = folded(text)
    found: list[Found] = []
    for kind in kinds:
        found += [Found(*span, kind) for span in _spans(KINDS[kind], plain, text)]
    return apart(found, tuple(KINDS))


def _spans(kind: Kind, plain: str, text: str) -> Iterator[Span]:
    place = 0
    while match := kind.pattern.search(plain, place):
        span = kind.check(match, text)
        place = span[1] if span else match.end()  # what a check cut off is looked through again
        if span:
            yield span


def apart(found: list[Found], order: tuple[str, ...]) -> list[Found]:
    """Without those that overlap one of a kind earlier in `order` (others come last)."""
    rank = {kind: place for place, kind in enumerate(order)}
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: (rank.get(one.kind, len(rank)), one.begin)):
        place = bisect(kept, one)
        neighbours = kept[max(0, place - 1) : place + 1]
        if all(one.end <= other.begin or one.begin >= other.end for other in neighbours):
            kept.insert(place, one)
    return kept
