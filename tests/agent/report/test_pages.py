"""The pages in a real browser, headless Chromium: what runs, what is seen, and whether it fits."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.engine.search import SearchOutcome
from agent.report import write_report
from agent.report.comparison_page import comparison_page, index_page, members
from agent.runs.directory import RunDirectory
from tests.agent.report_samples import HOSTILE, SCRIPTS, change_log, change_summary, copy_run

pytestmark = pytest.mark.usefixtures("drawn_once")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt install chromium)")


def chromium(folder: Path, page: Path, *flags: str) -> str:
    """Open a page and return what the browser prints."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}", *flags),
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture
def hostile(finished: SearchOutcome, tmp_path: Path) -> RunDirectory:
    """A run whose every free text tries to break out."""
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
    return run


def test_hostile_text_does_not_run(hostile: RunDirectory, tmp_path: Path) -> None:
    """The title is ours, the body is shown, and the model's markup is text in every script."""
    dom = chromium(tmp_path, write_report(hostile, measure=False), "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    assert hostile.path.name in title.group(1)
    assert "<script" not in dom
    assert SCRIPTS in html.unescape(dom)


def test_policy_stops_a_script_that_slipped_in(hostile: RunDirectory, tmp_path: Path) -> None:
    """Were the escaping broken, the content security policy would still hold; without it, the script would run."""
    page = write_report(hostile, measure=False)
    text = page.read_text(encoding="utf-8")
    injected = text.replace("</main>", "<script>document.title='owned'</script></main>")
    page.write_text(injected, encoding="utf-8")
    assert "<title>owned</title>" not in chromium(tmp_path, page, "--dump-dom")
    page.write_text(re.sub(r"<meta http-equiv[^>]*>", "", injected), encoding="utf-8")
    assert "<title>owned</title>" in chromium(tmp_path, page, "--dump-dom")


@pytest.mark.parametrize("width", [320, 800, 1400])
def test_nothing_sticks_out(finished: SearchOutcome, tmp_path: Path, width: int) -> None:
    """On a phone, a tablet and a desk the pages need no sideways scrolling: wide tables scroll by themselves."""
    run = copy_run(finished.run, tmp_path)
    pages = {"report": write_report(run, measure=False)}
    for name, text in (("compare", comparison_page(members([run, run]))), ("index", index_page([]))):
        pages[name] = tmp_path / f"{name}.html"
        pages[name].write_text(text, encoding="utf-8")
    frames = "".join(
        f'<iframe id="{name}" src="{page.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe>'
        for name, page in pages.items()
    )
    harness = tmp_path / "harness.html"
    harness.write_text(
        f"<!doctype html><body>{frames}<script>onload = () => {{ document.title = [...document.querySelectorAll("
        "'iframe')].map(f => f.id + '=' + f.contentDocument.documentElement.scrollWidth).join(' ') }</script>"
    )
    title = re.search(r"<title>(.*?)</title>", chromium(tmp_path, harness, "--window-size=1600,1000", "--dump-dom"))
    assert title is not None
    widths = dict(part.split("=") for part in title.group(1).split())
    assert widths == dict.fromkeys(pages, str(width))


def test_light_and_dark_differ(finished: SearchOutcome, tmp_path: Path) -> None:
    """Two screenshots: dark on light, and light on dark where the reader's system asks for it."""
    import numpy as np
    from matplotlib import image

    page = write_report(copy_run(finished.run, tmp_path), measure=False)
    brightness = {}
    for scheme, flags in (("light", []), ("dark", ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"])):
        shot = tmp_path / f"{scheme}.png"
        chromium(tmp_path, page, "--window-size=1000,1200", f"--screenshot={shot}", *flags)
        pixels = image.imread(shot)[:, :, :3]
        assert np.ptp(pixels) > 0.5
        brightness[scheme] = float(np.median(pixels))
    assert brightness["light"] > 0.9
    assert brightness["dark"] < 0.2


def test_print_leaves_a_pdf(finished: SearchOutcome, tmp_path: Path) -> None:
    """The page prints; it is a document of a few sheets."""
    page = write_report(copy_run(finished.run, tmp_path), measure=False)
    pdf = tmp_path / "page.pdf"
    chromium(tmp_path, page, f"--print-to-pdf={pdf}")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) <= 20
