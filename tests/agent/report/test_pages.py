"""The pages in a real browser, headless Chromium: what runs, what is seen, and whether it fits."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.engine.search import SearchOutcome
from agent.report import write_report
from agent.report.comparison_page import comparison_page, index_page, members
from agent.runs.directory import RunDirectory
from tests.agent.report_samples import HOSTILE, SCRIPTS, change_log, change_summary, copy_run

pytestmark = pytest.mark.usefixtures("drawn_once")
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@contextmanager
def opened(browser: Browser, page: Path, **settings: Any) -> Iterator[Page]:
    """A file in a window of its own, once it is loaded."""
    context = browser.new_context(**settings)
    window = context.new_page()
    window.goto(page.as_uri())
    yield window
    context.close()


@pytest.fixture(scope="module")
def report(drawn_once: None, finished: SearchOutcome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finished run. Nobody changes it."""
    return write_report(copy_run(finished.run, tmp_path_factory.mktemp("plain")), measure=False)


def test_hostile_text_does_not_run(browser: Browser, finished: SearchOutcome, tmp_path: Path) -> None:
    """A run whose every free text tries to break out: the title is ours, and its markup is text in every script.

    Were the escaping broken, the content security policy would still hold; without it, the script would run.
    """
    run = copy_run(finished.run, tmp_path)
    change_log(
        run,
        lambda event: (
            {**event, "content": {"message": {"content": HOSTILE + SCRIPTS, "reasoning": HOSTILE}}}
            if event["kind"] == "proposal"
            else {**event, "reply": HOSTILE}
            if event["kind"] == "tool_replied"
            else event
        ),
    )
    change_summary(run, caveat=HOSTILE, message=HOSTILE)
    page = write_report(run, measure=False)
    with opened(browser, page) as window:
        assert run.path.name in window.title()
        assert window.locator("body").is_visible()
        shown = window.content()
    assert "<script" not in shown
    assert SCRIPTS in html.unescape(shown)
    text = page.read_text(encoding="utf-8")
    injected = text.replace("</main>", "<script>document.title='owned'</script></main>")
    page.write_text(injected, encoding="utf-8")
    with opened(browser, page) as guarded:
        assert guarded.locator("script").count() == 1
        assert guarded.title() != "owned"
    page.write_text(re.sub(r"<meta http-equiv[^>]*>", "", injected), encoding="utf-8")
    with opened(browser, page) as open_to_all:
        assert open_to_all.title() == "owned"


def test_nothing_sticks_out(browser: Browser, report: Path, finished: SearchOutcome, tmp_path: Path) -> None:
    """On a phone, a tablet and a desk the pages need no sideways scrolling: wide tables scroll by themselves."""
    run = RunDirectory(finished.run)
    pages = {"report": report}
    for name, text in (("compare", comparison_page(members([run, run]))), ("index", index_page([]))):
        pages[name] = tmp_path / f"{name}.html"
        pages[name].write_text(text, encoding="utf-8")
    for path in pages.values():
        with opened(browser, path) as page:
            for width in (320, 800, 1400):
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth") == width, path


def test_light_and_dark_differ(browser: Browser, report: Path, tmp_path: Path) -> None:
    """Two screenshots: dark on light, and light on dark where the reader's system asks for it."""
    import numpy as np
    from matplotlib import image

    brightness = {}
    for scheme in ("light", "dark"):
        shot = tmp_path / f"{scheme}.png"
        with opened(browser, report, color_scheme=scheme, viewport={"width": 1000, "height": 1200}) as window:
            window.screenshot(path=shot)
        pixels = image.imread(shot)[:, :, :3]
        assert np.ptp(pixels) > 0.5
        brightness[scheme] = float(np.median(pixels))
    assert brightness["light"] > 0.9
    assert brightness["dark"] < 0.2


def test_print_leaves_a_pdf(browser: Browser, report: Path, tmp_path: Path) -> None:
    """The page prints; it is a document of a few sheets."""
    pdf = tmp_path / "page.pdf"
    with opened(browser, report) as page:
        page.pdf(path=pdf)
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) <= 20
