"""Web archives: pages become documents, all other answers are told of."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import polars as pl
import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from llm.curation.html import Extractor
from llm.curation.warc import WarcFiles
from tests.curation.reading import read, told
from tests.curation.test_html import PAGE

ANSWERS = [
    ("http://a.org/page", "200 OK", "text/html; charset=UTF-8", PAGE.encode()),
    ("http://a.org/gone", "404 Not Found", "text/html", PAGE.encode()),
    ("http://a.org/image", "200 OK", "image/png", b"\x89PNG"),
    ("http://a.org/nav", "200 OK", "text/html", b"<html><body></body></html>"),
    ("http://a.org/zip", "200 OK", "text/html", gzip.compress(b"<p>x</p>" * 300_000)),
    ("http://a.org/torn", "200 OK", "text/html", gzip.compress(PAGE.encode())[:-40]),
    (
        "http://a.org/last",
        "200 OK",
        "application/xhtml+xml",
        PAGE.replace("A plan", "B plan").encode("utf-8"),
    ),
]


def archive(path: Path, *, gz: bool) -> Path:
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=gz)
        writer.write_record(writer.create_warcinfo_record("x.warc", {"software": "none"}))
        for number, (url, status, kind, body) in enumerate(ANSWERS):
            headers = [("Content-Type", kind)]
            if body[:2] == b"\x1f\x8b":
                headers.append(("Content-Encoding", "gzip"))
            record = writer.create_warc_record(
                url,
                "response",
                payload=io.BytesIO(body),
                http_headers=StatusAndHeaders(status, headers, protocol="HTTP/1.1"),
                warc_headers_dict={"WARC-Record-ID": f"<urn:uuid:{number}>"},
            )
            writer.write_record(record)
            writer.write_record(
                writer.create_warc_record(url, "request", payload=io.BytesIO(b"GET / HTTP/1.1\r\n\r\n"))
            )
    return path


@pytest.mark.parametrize("gz", [True, False])
def test_answers(tmp_path: Path, gz: bool):
    source = WarcFiles(str(archive(tmp_path / f"x.warc{'.gz' * gz}", gz=gz)), max_document_bytes=1_000_000)
    found = read(source)
    assert found["provenance"].to_list() == [url for url, *_ in ANSWERS]
    assert found["id"].to_list() == [f"urn:uuid:{number}" for number in range(len(ANSWERS))]
    reasons = found["reason"].to_list()
    assert reasons[:5] == [None, "http_status", "not_html", "no_main_text", "too_large"]
    assert reasons[5:] == [None, None], "of a torn page, what came is taken, as a browser takes it"
    assert "A plan" in found["text"][0]
    assert "B plan" in found["text"][-1]
    assert found["score"][1] == 404


def test_damaged_archives(tmp_path: Path):
    whole = archive(tmp_path / "a.warc.gz", gz=True).read_bytes()
    (tmp_path / "a.warc.gz").write_bytes(whole[:-500])
    (tmp_path / "b.warc").write_bytes(b"this is no archive\r\n\r\nat all")
    (tmp_path / "c.warc").write_bytes(b"")
    found = read(WarcFiles(str(tmp_path), max_document_bytes=1_000_000))
    assert found.filter("keep")["id"].to_list() == ["urn:uuid:0", "urn:uuid:5"]
    last = found.filter(pl.col("id") == f"urn:uuid:{len(ANSWERS) - 1}")
    assert last["reason"].to_list() == ["truncated"]
    assert found["id"].to_list()[-3:] == ["a.warc.gz#truncated", "b.warc#not_warc", "c.warc#empty"]


def record(number: int, body: bytes) -> bytes:
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.org/\r\n"
        f"WARC-Record-ID: <urn:uuid:{number}>\r\nContent-Type: application/http;msgtype=response\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def test_a_broken_record_costs_no_other(tmp_path: Path, monkeypatch):
    sound = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE.encode()
    bodies = [sound, sound.replace(b"200", b"\xb2\xb2\xb2"), sound.replace(b"A plan", b"to fail"), sound]
    extract = Extractor.extract

    def fail(self, page: str):
        if "to fail" in page:
            raise ValueError
        return extract(self, page)

    monkeypatch.setattr(Extractor, "extract", fail)
    (tmp_path / "a.warc").write_bytes(b"".join(record(number, one) for number, one in enumerate(bodies)))
    (tmp_path / "b.warc").write_bytes(record(4, sound) + b"garbage\r\n\r\n" + record(5, sound))
    found = read(WarcFiles(str(tmp_path)))
    assert found["reason"].to_list() == [None, "http_status", "broken_record", None, None, "corrupt"]
    assert found["id"].to_list()[:4] == [f"urn:uuid:{number}" for number in range(4)]


def test_extracted_text(tmp_path: Path):
    path = tmp_path / "x.warc.wet.gz"
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        record = writer.create_warc_record(
            "http://a.org/",
            "conversion",
            payload=io.BytesIO("zwölf\nWörter".encode()),
            warc_content_type="text/plain",
            warc_headers_dict={"WARC-Record-ID": "<urn:uuid:7>"},
        )
        writer.write_record(record)
    assert told(WarcFiles(str(path))) == [("urn:uuid:7", "zwölf\nWörter", True, None)]
    assert read(WarcFiles(str(path), licence="X")).select(pl.col("licence", "provenance")).row(0) == (
        "X",
        "http://a.org/",
    )
