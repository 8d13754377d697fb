"""The report in a real browser: nothing fetched, nothing complained about, no sideways scrolling on a phone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from browser import Browser, find_chromium
from example_comparison import example
from example_ladder import example_ladder

from rung.comparison.language_models.report import write_reports as write_ladder
from rung.comparison.report import write_reports

pytestmark = pytest.mark.slow

CONTRAST = """(() => {
  const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = colour => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
    return Array.from(paint.getImageData(0, 0, 1, 1).data); };
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const style = getComputedStyle(document.documentElement);
  const value = name => light(rgb(style.getPropertyValue(name).trim()));
  const ratio = (a, b) => (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  return ['--ink', '--muted', '--chosen', '--reference', '--other'].flatMap(
    ink => ['--page', '--paper'].map(ground => [ink, ground, ratio(value(ink), value(ground))]));
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine: the page is not looked at in a browser")
    with Browser(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module", params=["ordinary", "hostile", "absent", "language models"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "language models":
        return write_ladder(example_ladder(), tmp_path_factory.mktemp("report"))
    comparison = {
        "ordinary": lambda: example(rungs=6),
        "hostile": lambda: example(rungs=3, classes=150, hostile=True, long_names=True),
        "absent": lambda: example(rungs=4, measured=False),
    }[request.param]()
    return write_reports(comparison, tmp_path_factory.mktemp("report"))


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_page_stands_alone(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("[...document.querySelectorAll('svg')].every(one => one.getBoundingClientRect().width > 0)")
    assert all(ratio >= 4.5 for _, _, ratio in browser.evaluate(CONTRAST))
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []


def test_page_prints(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.pdf().startswith(b"%PDF")
