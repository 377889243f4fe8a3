"""PDF files: the text of their pages, or why there is none."""

from __future__ import annotations

import io
from pathlib import Path

import pypdf

from llm.curation.pdf import PdfFiles
from tests.curation.reading import told


def pdf(*pages: str) -> bytes:
    """A file of one line a page, as the format's own introduction writes it."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for n, text in enumerate(pages):
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * n} 0 R >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("cp1252")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n{table}"
    return (
        out + f"{end}trailer << /Size {len(places) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF".encode()
    )


def locked(content: bytes) -> bytes:
    writer = pypdf.PdfWriter(pypdf.PdfReader(io.BytesIO(content)))
    writer.encrypt("secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_pdf(tmp_path: Path):
    whole = pdf("First page, gr\xfcn.", "", "Third page.")
    contents = {
        "a": whole,
        "b": locked(whole),
        "c": whole[:200],
        "d": pdf("", ""),
        "e": b"no such format",
        "f": b"",
        "g": pdf("x" * 5000),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.pdf").write_bytes(content)
    assert told(PdfFiles(str(tmp_path), max_document_bytes=4000)) == [
        ("a.pdf", "First page, grün.\n\nThird page.", True, None),
        ("b.pdf", "", False, "encrypted"),
        ("c.pdf", "", False, "broken_pdf"),
        ("d.pdf", "", False, "no_text"),
        ("e.pdf", "", False, "broken_pdf"),
        ("f.pdf#empty", "", False, "empty"),
        ("g.pdf", "", False, "too_large"),
    ]


def test_a_page_that_cannot_be_read_is_told_of(tmp_path: Path, monkeypatch):
    (tmp_path / "a.pdf").write_bytes(pdf("one", "two", "three"))
    real = pypdf.PageObject.extract_text

    def extract(page: pypdf.PageObject) -> str:
        text = real(page)
        if text == "two":
            raise KeyError("/Font")
        return text

    monkeypatch.setattr(pypdf.PageObject, "extract_text", extract)
    assert told(PdfFiles(str(tmp_path))) == [("a.pdf", "one\n\nthree", True, "lost_pages")]
