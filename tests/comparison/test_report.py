"""The written report: valid JSON, harmless HTML and Markdown, honest gaps, the same bytes twice."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from selectolax.lexbor import LexborHTMLParser

sys.path.insert(0, str(Path(__file__).parent))

from example_comparison import HOSTILE, example

from rung.comparison import report_text as words
from rung.comparison.plot_labels import overlap, place_labels
from rung.comparison.plot_style import INK, canvas
from rung.comparison.report import summary_lines, write_reports
from rung.comparison.report_html import html_page
from rung.comparison.report_markdown import escape, markdown
from rung.comparison.result import Comparison, json_schema


def test_json_is_valid_by_its_schema_and_comes_back_equal(tmp_path: Path) -> None:
    comparison = example(rungs=3)
    page = write_reports(comparison, tmp_path / "new" / "folder")
    assert page == tmp_path / "new" / "folder" / "report.html"
    text = (page.parent / "report.json").read_text(encoding="utf-8")
    Draft202012Validator(json_schema()).validate(json.loads(text))
    assert Comparison.model_validate_json(text) == comparison
    broken = json.loads(text) | {"verdict": {"answer": "perhaps"}}
    assert not Draft202012Validator(json_schema()).is_valid(broken)


def test_the_same_comparison_gives_the_same_bytes() -> None:
    assert html_page(example(rungs=4)) == html_page(example(rungs=4))


def test_foreign_texts_are_harmless_on_the_page() -> None:
    page = html_page(example(rungs=3, classes=3, hostile=True))
    tree = LexborHTMLParser(page)
    assert not tree.css("script, img, iframe, object, embed")
    assert not [node for node in tree.css("*") if any(name.startswith("on") for name in node.attributes)]
    assert "\u202e" not in page
    assert "U+202E" in page
    assert "99,400 more characters" in page
    assert "default-src 'none'" in str(tree.css_first("meta[http-equiv]").attributes["content"])
    assert not re.search(r"""(?:href|src)=["'](?!#|data:,)""", page)
    assert "url(http" not in page


def test_ids_are_unique_and_links_lead_somewhere() -> None:
    tree = LexborHTMLParser(html_page(example(rungs=5)))
    ids = [node.attributes["id"] for node in tree.css("[id]")]
    assert len(ids) == len(set(ids))
    targets = [str(node.attributes["href"])[1:] for node in tree.css("a[href^='#'], use[href^='#']")]
    assert targets
    assert set(targets) <= set(ids)


def test_the_page_can_be_read_by_ear() -> None:
    tree = LexborHTMLParser(html_page(example(rungs=5)))
    assert len(tree.css("h1")) == len(tree.css("main")) == len(tree.css("header")) == 1
    levels = [int(str(node.tag)[1]) for node in tree.css("h1, h2, h3, h4")]
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    for picture in tree.css("svg"):
        assert picture.attributes["role"] == "img"
        described = str(picture.attributes["aria-labelledby"]).split()
        assert all(tree.css_first(f"#{name}").text(strip=True) for name in described)
    for table in tree.css("table"):
        assert table.css_first("caption").text(strip=True)
        assert all(head.attributes.get("scope") in {"row", "col"} for head in table.css("th"))
    assert len(tree.css("figure")) == len(tree.css("figure details table")) - _second_tables(tree)


def _second_tables(tree: LexborHTMLParser) -> int:
    """Figures with two panels or two readings have two tables."""
    return sum(max(0, len(figure.css("details table")) - 1) for figure in tree.css("figure"))


@pytest.mark.parametrize("kind", [html_page, markdown])
def test_what_was_not_measured_is_said_and_nothing_is_invented(kind: object) -> None:
    assert callable(kind)
    text = kind(example(measured=False, rungs=4, answer="not decided"))
    assert "not measured" in text
    assert "switched off by" in text
    assert "None" not in text
    assert "nan" not in re.findall(r"[a-z]+", text.lower())


def test_many_classes_are_listed_by_their_confusions_instead_of_a_matrix() -> None:
    tree = LexborHTMLParser(html_page(example(classes=150, rungs=2)))
    assert not tree.css("table.matrix")
    assert any("Confused most often" in caption.text() for caption in tree.css("caption"))
    assert LexborHTMLParser(html_page(example(classes=5, rungs=2))).css("table.matrix")


def test_one_rung_alone_has_a_report() -> None:
    page = html_page(example(rungs=1, classes=2, answer="yes"))
    assert "fewer than two rungs" in page


def test_markdown_shows_foreign_texts_as_they_are() -> None:
    shown = escape(HOSTILE)
    assert "<script" not in re.sub(r"\\<", "", shown)
    assert "http:" not in shown
    text = markdown(example(rungs=3, hostile=True))
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    rules = [len(re.findall(r"\|", line)) for line in text.splitlines() if re.fullmatch(r"[| :-]+", line)]
    assert set(widths) == set(rules)
    assert text.startswith("# No, you do not need")


def test_summary_has_the_verdict_aligned_columns_and_the_way_to_the_page() -> None:
    comparison = example()
    lines = summary_lines(comparison, Path("out/report.html"))
    assert lines[0] == comparison.verdict.sentence
    assert lines[-1] == "Report: out/report.html"
    table = lines[2:-2]
    assert len(table) == 1 + len(comparison.rungs)
    end = table[0].index("Size") + len("Size")
    assert all(row[end - 1] != " " and row[end] == " " for row in table)


@pytest.mark.parametrize("count", [2, 7, 12])
def test_labels_in_a_crowd_do_not_cover_each_other(count: int) -> None:
    points = [(1.0 + 0.03 * (i % 4), 0.9 + 0.004 * (i // 4)) for i in range(count)]
    with canvas(370) as figure:
        axes = figure.add_subplot()
        axes.set_xlim(0, 2)
        axes.set_ylim(0.8, 1.0)
        boxes = place_labels(axes, points, [f"encoder-number-{i}" for i in range(count)], [INK] * count)
    assert all(overlap(boxes[i], boxes[j]) == 0 for i in range(count) for j in range(i))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0 %"), (1.0, "100.0 %"), (0.9999, ">99.9 %"), (0.0001, "<0.1 %"), (0.9034, "90.3 %")],
)
def test_percent_never_rounds_to_certainty(value: float, text: str) -> None:
    assert words.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.2e-5, "42.0 µs"), (0.0123, "12.3 ms"), (3.4, "3.40 s"), (170, "2 min 50 s"), (9000, "2.50 h")],
)
def test_duration_reads_in_fitting_units(value: float, text: str) -> None:
    assert words.duration(value) == text


def test_what_leaked_and_what_a_prompted_model_failed_at_is_shown() -> None:
    comparison = example()
    comparison.rungs[1].details["leaked"] = {"n": 17, "accuracy": 0.75}
    prompting = comparison.rungs[-1].details.setdefault("prompting", {})
    prompting["failures"] = [{"text": "what <b>now</b>", "problem": "answered 'banana'"}]
    prompting["answer_variation"] = {"items": 10, "samples": 5, "temperature": 0.7, "varying_share": 0.3}
    page = html_page(comparison)
    assert "counted nowhere else" in page
    assert "75.0" in page
    assert "answered &#x27;banana&#x27;" in page
    assert "<b>now</b>" not in page
    assert "30.0\u00a0% of 10 texts asked 5 times at temperature 0.7" in page
