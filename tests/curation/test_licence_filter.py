from __future__ import annotations

import polars as pl
import pytest

from llm.curation.base import judge
from llm.curation.licence_filter import LicenceFilter, spdx
from llm.types import ConfigError
from tests.curation.test_steps import corpus


def licensed(*licences: str | None) -> pl.DataFrame:
    return corpus(["text"] * len(licences)).with_columns(pl.Series("licence", licences, pl.String))


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT AND Apache-2.0", True),
        ("MIT AND GPL-3.0-only OR LGPL-2.1-only", False),
        ("(MIT OR GPL-2.0-only) AND (BSD-3-Clause OR LGPL-2.1+)", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("MIT OR", False),
        ("(MIT", False),
        ("MIT MIT", False),
        ("Apache License 2.0", True),
        ("The MIT License", True),
        ("https://creativecommons.org/licenses/by/4.0/", True),
        ("https://creativecommons.org/licenses/by-nc/4.0/deed.de", False),
        ("CC BY-NC-ND 4.0", False),
        ("CC BY 3.0", True),
        ("Public Domain", True),
        ("3-Clause BSD", True),
        ("all rights reserved", False),
        ("The MIT License (MIT)", True),
        ("MIT License (GPL)", False),
        ("BSD 3-Clause License", True),
        ('BSD 3-Clause "New" or "Revised" License', True),
        ('BSD 2-Clause "Simplified" License', True),
        ("Simplified BSD License", True),
        ("BSD-3-Clause-No-Nuclear-License", False),
        ("ISC License", True),
        ("ISC License (ISC)", True),
        ("The Unlicense", True),
        ("zlib License", True),
        ("Boost Software License 1.0", True),
        ("MIT/Apache-2.0", True),
        ("MIT License / GPL-3.0 License", True),
        ("GPL-2.0/LGPL-2.1", False),
        ("(MIT License) AND GPL-3.0", False),
        ("modified MIT License", False),
        ("MIT License with Commons Clause", False),
        ("https://example.org/MIT", False),
        ("(" * 5000 + "MIT", False),
    ],
)
def test_permissive(licence: str, allowed: bool) -> None:
    judged = judge(LicenceFilter(), licensed(licence))
    assert judged["keep"].to_list() == [allowed]
    assert judged["reason"].to_list() == [None if allowed else f"licence_{licence}"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Creative Commons BY-SA 4.0 International", "cc-by-sa-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("CC0", "cc0-1.0"),
        ("Apache 2.0", "apache-2.0"),
        ("Apache Software License, Version 2.0", "apache-2.0"),
        ("GPLv3", "gpl-3.0"),
        ("LGPL-2.1-or-later", "lgpl-2.1-or-later"),
        ("CC-BY-SA-3.0", "cc-by-sa-3.0"),
        ("BSD-3-Clause", "bsd-3-clause"),
        ("BSD-3-Clause-Clear", "bsd-3-clause-clear"),
        ("BSD-2-Clause-Patent", "bsd-2-clause-patent"),
        ("BSD License", "bsd-3-clause"),
    ],
)
def test_spellings(written: str, meant: str) -> None:
    assert spdx(written) == meant
    assert spdx(meant) == meant


@pytest.mark.parametrize(
    ("allowed", "licences"),
    [
        ("GPL-3.0", "GPL-3.0 GPL-3.0-only GPL-3.0+ GPL-3.0-or-later GPLv3"),
        ("GPL-3.0-only", "GPL-3.0 GPL-3.0-only GPL-3.0+ GPL-3.0-or-later GPLv3"),
        ("GPL-3.0-or-later", "GPL-3.0+ GPL-3.0-or-later GPLv3+"),
        ("GPL-3.0+", "GPL-3.0+ GPL-3.0-or-later GPLv3+"),
    ],
)
def test_old_and_new_names(allowed: str, licences: str) -> None:
    step = LicenceFilter([allowed])
    assert all(map(step.allows, licences.split()))
    assert not any(map(step.allows, {"GPL-3.0", "GPL-3.0-only", "AGPL-3.0"} - set(licences.split())))
    refusing = LicenceFilter(["*"], denied=[allowed])
    assert not any(map(refusing.allows, licences.split()))


def test_unknown_denied_and_patterns() -> None:
    frame = licensed(None, "unknown", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-SA-4.0")
    judged = judge(LicenceFilter(["CC-BY-*"], denied=["*-NC-*"]), frame)
    assert judged["reason"].to_list() == [
        "licence_unknown",
        "licence_unknown",
        None,
        "licence_CC-BY-NC-4.0",
        None,
    ]
    assert judge(LicenceFilter(["CC-BY-4.0"], unknown="keep"), frame)["keep"].to_list() == [
        *(True, True, True),
        *(False, False),
    ]
    with pytest.raises(ConfigError) as caught:
        LicenceFilter([])
    assert caught.value.key == "allowed"
