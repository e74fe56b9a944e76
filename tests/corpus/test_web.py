"""Web pages: the main text of HTML in any encoding, from files and from web archives."""

import gzip
import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smelt.corpus import html
from smelt.corpus.html import decoded
from smelt.corpus.readers import Bad, parts, read
from smelt.errors import InputError
from smelt.recipe.sections.readers import Html, Warc

pytest.importorskip("trafilatura", reason="needs the extra 'data'")
warcio = pytest.importorskip("warcio", reason="needs the extra 'data'")

PARAGRAPHS = [
    f"Paragraph {number} tells of ore and of furnaces, which melt it into metal, at such length that it counts."
    for number in range(4)
]


def page(*paragraphs: str, charset: str = "", extra: str = "") -> str:
    meta = f'<meta charset="{charset}">' if charset else ""
    body = "".join(f"<p>{each}</p>" for each in paragraphs)
    return (
        f"<!doctype html><html><head>{meta}<title>Ore</title><script>var tracking = 1</script></head><body>"
        '<nav><a href="/">Home</a> <a href="/all">All articles</a></nav>'
        f"<article><h1>The ore</h1>{body}{extra}</article><footer>Imprint. Accept cookies</footer></body></html>"
    )


def sorted_out(reader) -> tuple[list, list[Bad]]:
    bad: list[Bad] = []
    return list(read(reader, "web", 0, bad=bad.append)), bad


def test_the_main_text_of_a_page_is_kept_without_menus_scripts_and_footers(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    code = "<pre>x = 1\n  y = 2</pre><ul><li>one</li><li>two</li></ul>"
    (tmp_path / "deep" / "a.html").write_text(page(*PARAGRAPHS, extra=code))
    (tmp_path / "b.htm.gz").write_bytes(gzip.compress(page(PARAGRAPHS[0] * 3).encode()))
    (tmp_path / "c.txt").write_text("no page")
    found, bad = sorted_out(Html(kind="html", path=str(tmp_path)))
    assert [each.id for each in found] == [f"{tmp_path}/b.htm.gz", f"{tmp_path}/deep/a.html"]
    text = found[1].text
    assert text.splitlines()[:5] == ["The ore", *PARAGRAPHS]
    assert "x = 1\n  y = 2" in text and "- one\n- two" in text
    assert not any(word in text for word in ("Home", "All articles", "tracking", "cookies"))
    assert found[1].facts == {"path": f"{tmp_path}/deep/a.html"}
    assert not bad


def test_what_is_doubtful_is_left_out_for_precision_and_kept_for_recall(tmp_path: Path) -> None:
    link = '<p><a href="x">A link alone in its paragraph that says to read on about furnaces</a></p>'
    (tmp_path / "a.html").write_text(page(*PARAGRAPHS, extra=link))
    table = f"<table><tr><td>{'Cell text about metal. ' * 8}</td></tr></table>"
    teaser = f'<p>{"Text of ore. " * 14}</p>{table}<div class="teaser"><p>Teaser on coal.</p></div>'
    (tmp_path / "b.html").write_text(f'<html><body><div class="content">{teaser}</div></body></html>')
    kept = {}
    for favor in ("precision", "balance", "recall"):
        (first, second), _ = sorted_out(Html(kind="html", path=str(tmp_path), favor=favor))
        kept[favor] = ("read on" in first.text, "Teaser" in second.text)
    assert kept == {"precision": (False, False), "balance": (True, False), "recall": (True, True)}


def test_a_page_without_text_is_an_empty_document_and_an_empty_file_is_bad(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html><body></body></html>")
    (tmp_path / "b.html").write_text("")
    (tmp_path / "c.html").write_text(" \n")
    (tmp_path / "d.html").write_text(page(*PARAGRAPHS * 50))
    found, bad = sorted_out(Html(kind="html", path=str(tmp_path), max_bytes=10_000))
    assert [each.text for each in found] == ["", ""]
    assert [(each.place, each.reason) for each in bad] == [
        (f"{tmp_path}/b.html", "empty file"),
        (f"{tmp_path}/d.html", "longer than 10,000 bytes"),
    ]


@pytest.mark.parametrize(
    ("text", "encoding", "declared", "meta"),
    [
        ("Straße und Öfen", "utf-8", None, ""),
        ("Straße und Öfen", "utf-8-sig", None, ""),
        ("Straße und Öfen", "utf-8", "iso-8859-1", ""),
        ("Straße “und” Öfen", "cp1252", "ISO-8859-1", ""),
        ("Straße und Öfen", "latin-1", None, "iso-8859-1"),
        ("Печь и руда", "windows-1251", None, "windows-1251"),
        ("Печь и руда", "koi8-r", "KOI8-R", ""),
        ("炉と鉱石", "shift_jis", None, "Shift_JIS"),
        ("炉と鉱石", "iso2022_jp", "iso-2022-jp", ""),
        ("炉子和矿石", "gb18030", "GB2312", ""),
        ("Öfen", "utf-16", None, ""),
        ("Straße und Öfen", "utf-8", "no-such-charset", "nor-this"),
    ],
)
def test_a_page_is_decoded_as_a_browser_would(text: str, encoding: str, declared: str | None, meta: str) -> None:
    whole = page(text, charset=meta)
    assert decoded(whole.encode(encoding), declared) == whole


def test_bytes_that_are_no_text_in_any_encoding_still_give_a_page() -> None:
    assert "ore" in decoded(page("ore \x81").encode("latin-1"), "utf-8")
    assert decoded(b"\xff\xfe\x00\xd8\x00\xd8") == "\ufffd\ufffd"
    assert isinstance(decoded(bytes(range(256)) * 3), str)


@settings(max_examples=50)
@given(
    st.binary(max_size=200),
    st.sampled_from(["", "hex", "idna", "punycode", "undefined", "unicode_escape", "rot13", "zlib", "utf-7", "\0", "é"])
    | st.text(max_size=20),
)
def test_no_declared_encoding_breaks_a_page(content: bytes, declared: str) -> None:
    assert isinstance(decoded(content, declared), str)


def test_every_encoding_that_browsers_know_is_known() -> None:
    names = [*(f"iso-8859-{part}" for part in (1, 2, 9, 15, 16)), *(f"windows-125{part}" for part in range(9))]
    names += ["utf-8", "utf-16le", "ibm866", "koi8-r", "koi8-u", "macintosh", "x-mac-cyrillic", "windows-874", "gbk"]
    names += ["gb18030", "big5", "euc-jp", "iso-2022-jp", "shift_jis", "x-sjis", "euc-kr", "tis-620", "us-ascii"]
    assert [name for name in names if not html._known(name)] == []


def archive(path: Path, records: list[tuple[str, str, str, bytes]], packed: bool = True) -> Path:
    """WARC records (type, status and reason, content type, content), numbered from 0."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=packed)
        writer.write_record(writer.create_warcinfo_record("a.warc", {"software": "tests"}))
        for number, (kind, status, content_type, content) in enumerate(records):
            headers = StatusAndHeaders(status, [("Content-Type", content_type)], protocol="HTTP/1.1")
            of_record = {"WARC-Record-ID": f"<urn:uuid:{number}>", "WARC-Date": "2026-01-02T03:04:05Z"}
            writer.write_record(
                writer.create_warc_record(
                    f"https://ore.example/{number}",
                    kind,
                    payload=io.BytesIO(content),
                    http_headers=headers if kind == "response" else None,
                    warc_headers_dict=of_record,
                    warc_content_type=content_type if kind == "conversion" else "",
                )
            )
    return path


WHOLE = page(*PARAGRAPHS).encode()
RECORDS = [
    ("response", "200 OK", "text/html; charset=UTF-8", WHOLE),
    ("response", "404 Not Found", "text/html", WHOLE),
    ("response", "200 OK", "image/png", b"\x89PNG"),
    ("request", "", "", b"GET / HTTP/1.1\r\nHost: ore.example\r\n\r\n"),
    ("response", "200 OK", "text/plain", b"plain words"),
    ("response", "200 OK", "text/html; charset=windows-1251", page("Печь и руда. " * 20).encode("windows-1251")),
]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_pages_of_an_archive_are_documents_named_by_their_records(tmp_path: Path, suffix: str) -> None:
    archive(tmp_path / f"a.warc{suffix}", RECORDS, packed=bool(suffix))
    reader = Warc(kind="warc", path=str(tmp_path))
    found, bad = sorted_out(reader)
    assert [each.id for each in found] == ["urn:uuid:0", "urn:uuid:4", "urn:uuid:5"]
    assert found[0].text.splitlines() == ["The ore", *PARAGRAPHS]
    assert found[0].facts == {"url": "https://ore.example/0", "date": "2026-01-02T03:04:05Z"}
    assert found[1].text == "plain words"
    assert "Печь и руда" in found[2].text
    assert not bad
    assert parts(reader) == [f"{tmp_path}/a.warc{suffix}"]


def test_text_of_a_wet_file_is_taken_as_it_is(tmp_path: Path) -> None:
    archive(tmp_path / "a.warc.wet.gz", [("conversion", "", "text/plain", "already text\nÖfen".encode())])
    found, bad = sorted_out(Warc(kind="warc", path=str(tmp_path)))
    assert [(each.text, each.id) for each in found] == [("already text\nÖfen", "urn:uuid:0")]
    assert not bad


def test_an_archive_that_is_cut_gives_the_pages_before_the_cut(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.warc.gz", [("response", "200 OK", "text/plain", b"words %d" % n) for n in range(50)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "b.warc").write_bytes(b"")
    (tmp_path / "c.warc").write_bytes(b"this is no archive\n" * 20)
    (tmp_path / "d.warc").write_bytes(b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 9\r\n\r\nno header\r\n\r\n")
    found, bad = sorted_out(Warc(kind="warc", path=str(tmp_path)))
    assert 20 <= len(found) <= 26
    assert [each.text for each in found] == [f"words {n}" for n in range(len(found))]
    assert [(Path(each.place).name, each.reason) for each in bad] == [
        ("a.warc.gz", "ends in the middle of its compressed data (truncated)"),
        ("b.warc", "empty file"),
        ("c.warc:1", "not a readable WARC record"),
        ("d.warc:1", "not a readable WARC record"),
    ]
    with pytest.raises(InputError, match="truncated"):
        list(read(Warc(kind="warc", path=str(path)), "web", 0))


@pytest.mark.parametrize("where", ["between pages", "within a page"])
def test_damage_in_an_archive_weighs_as_much_as_the_pages_after_it(tmp_path: Path, where: str) -> None:
    drawn = random.Random(0)
    pages = [("response", "200 OK", "text/plain", drawn.randbytes(150_000).hex().encode()) for _ in range(20)]
    first, page, rest = (archive(tmp_path / "some", some).read_bytes() for some in (pages[:5], pages[5:6], pages[6:]))
    if where == "between pages":
        page = b"\xff" + page
    else:
        page = page[: len(page) // 2] + b"\xff" * 1000 + page[len(page) // 2 + 1000 :]
    (tmp_path / "a.warc.gz").write_bytes(first + page + rest)
    found, [bad] = sorted_out(Warc(kind="warc", path=str(tmp_path / "a.warc.gz")))
    assert [each.text.encode() for each in found] == [content for *_, content in pages[:5]]
    assert (bad.place, bad.reason) == (f"{tmp_path}/a.warc.gz", "not valid gzip data")
    assert 12 <= bad.rows <= 18


def test_a_page_beyond_the_limit_and_a_repeated_record_are_bad(tmp_path: Path) -> None:
    long = ("response", "200 OK", "text/plain", b"word " * 1000)
    archive(tmp_path / "a.warc.gz", [long, ("response", "200 OK", "text/plain", b"short")])
    content = (tmp_path / "a.warc.gz").read_bytes()
    (tmp_path / "a.warc.gz").write_bytes(content + content)
    found, bad = sorted_out(Warc(kind="warc", path=str(tmp_path), max_bytes=1000))
    assert [each.text for each in found] == ["short"]
    assert [each.reason for each in bad] == ["longer than 1,000 bytes"] * 2 + ["an id that came before"]


@pytest.mark.parametrize("coding", ["", "gzip", "deflate", "chunked", "zstd"])
def test_bodies_are_unpacked_whole_and_one_that_cannot_be_costs_itself_alone(tmp_path: Path, coding: str) -> None:
    import zlib

    words = " ".join(f"word{number}" for number in range(40_000)).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (words[:100], words[100:])) + b"0\r\n\r\n"
    packed = {"gzip": gzip.compress(words), "deflate": zlib.compress(words), "chunked": chunks}.get(coding, words)
    header = {"": "X-Nothing", "chunked": "Transfer-Encoding"}.get(coding, "Content-Encoding")
    records = [
        ("response", "200 OK", f"text/plain\r\n{header}: {coding}", packed),
        ("response", "200 OK", f"text/plain\r\n{header}: {coding}", b"not coded as it says"),
        ("response", "200 OK", "text/plain", b"the last"),
    ]
    found, bad = sorted_out(Warc(kind="warc", path=str(archive(tmp_path / "a.warc.gz", records))))
    assert found[-1].text == "the last"
    assert len(found) + len(bad) == 3
    if coding == "zstd":
        assert [each.reason for each in bad] == ["a page packed as zstd"] * 2
    else:
        assert found[0].text == words.decode()
