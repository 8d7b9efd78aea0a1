"""The server in Chromium, clicking through as a person would: start, follow, comment, approve, hidden task, compare."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.runs.directory import RunDirectory
from agent.runs.reviews import standing
from tests.agent.web.servers import Client, serving
from tests.sample import SAMPLE, restore

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

slow = pytest.mark.skipif(
    not os.environ.get("INITSEARCH_BROWSER"), reason="searches for a minute: INITSEARCH_BROWSER=1"
)
SHOTS = os.environ.get("INITSEARCH_SHOTS")
"""A folder for pictures of what the tests see."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Client]:
    """A server for a folder with the sample run, twice."""
    runs = tmp_path_factory.mktemp("served") / "runs"
    runs.mkdir()
    for name in ("20261101-120000-pocket-optuna-aaaa", "20261102-120000-pocket-optuna-bbbb"):
        restore(SAMPLE, runs / name)
    (runs / name / "network.json").unlink()
    with serving(runs, cache=cache) as client:
        client.runs = runs  # type: ignore[attr-defined]
        yield client


@pytest.fixture
def page(browser: Browser, client: Client) -> Iterator[Page]:
    """A page that has opened the address with its token. Errors on the console fail the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(f"{client.base}/?token={client.token}")
    yield page
    shot(page, "last")
    context.close()
    assert not [error for error in errors if "status of 4" not in error]


def shot(page: Page, name: str, *, full: bool = False) -> None:
    """Keep a picture, if somebody wants them."""
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=full)


def serious(page: Page) -> list[str]:
    """What axe finds serious or critical on a page."""
    axe: Any = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing")
    # The page's policy lets no script in from outside, so the checker comes in by the debugger.
    source = Path(axe.__file__).parent / "axe.min.js"
    page.evaluate(source.read_text(encoding="utf-8") + "; 0")
    # To describe all the nodes that pass takes as long as to find those that do not.
    found = page.evaluate("async () => (await axe.run({resultTypes: ['violations']})).violations")
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")
    ]


def test_the_token_leaves_the_address(page: Page, client: Client) -> None:
    """The history and a copied address have no token, and the cookie opens the next page."""
    assert page.url == f"{client.base}/"
    page.reload()
    assert page.locator("h1").inner_text().startswith("2 runs")


def test_compare_by_ticking(page: Page) -> None:
    """The first run that is ticked is the one that the others are compared with."""
    assert page.locator("#compare").is_disabled()
    boxes = page.locator("#shelf input[type=checkbox]")
    boxes.nth(1).check()
    boxes.nth(0).check()
    page.locator("#compare").click()
    page.wait_for_url(re.compile("/compare"))
    assert "2 runs compared" in page.locator("header.top").inner_text()
    assert page.locator("td a").first.inner_text().endswith("aaaa")
    assert not serious(page)
    shot(page, "compare")


def test_comments_and_verdicts_by_keyboard(page: Page, client: Client) -> None:
    """A comment on a line and a rejection, without a mouse; both stand in reviews.jsonl with what they are about."""
    page.get_by_role("link", name="20261102").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("bbbb/$"))
    line = page.locator("a.say").nth(3)
    number = int(line.inner_text())
    line.focus()
    page.keyboard.press("Enter")
    page.keyboard.type("why this scale?")
    page.keyboard.press("Tab")
    shot(page, "comment")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("#review$"))
    assert page.locator(".said .remark p").inner_text() == "why this scale?"
    page.get_by_label("Reject").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.type("depends on one network")
    page.get_by_role("button", name="Record the verdict").press("Enter")
    page.locator("#review .badge").wait_for()
    assert "rejected" in page.locator("#review .badge").inner_text()
    shot(page, "rejected")
    run = RunDirectory(client.runs / "20261102-120000-pocket-optuna-bbbb")  # type: ignore[attr-defined]
    now = standing(run)
    assert [(review.kind, review.line) for review in now.reviews] == [("comment", number), ("reject", None)]
    assert now.exit_code == 3
    assert all("token" in review.author and review.log_sha256 == now.log[-1] for review in now.reviews)
    page.goto(f"{client.base}/")
    assert "rejected" in page.locator("tr", has_text="bbbb").inner_text()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_looks(browser: Browser, client: Client, scheme: str, width: int) -> None:
    """Every page in both colour schemes and widths: nothing sticks out sideways, and axe finds nothing serious."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{client.base}/?token={client.token}")
    for name, path in {
        "shelf": "/",
        "run": "/runs/20261101-120000-pocket-optuna-aaaa/",
        "new": "/new",
        "missing": "/nothing",
    }.items():
        page.goto(f"{client.base}{path}")
        shot(page, f"{name}-{scheme}-{width}", full=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert not serious(page), path
    context.close()


@slow
def test_a_search_from_its_start_to_its_hidden_task(page: Page, client: Client) -> None:
    """Started in the browser, followed without a reload, approved, and gone on with to the hidden task."""
    page.get_by_role("link", name="New search").click()
    page.get_by_label("Tests").fill("1")
    page.get_by_label("Profile").select_option("smoke")
    page.get_by_label("Proposer").select_option("random")
    page.get_by_role("button", name="Start the search").click()
    page.wait_for_url(re.compile(r"/runs/[^/]*smoke-random-[0-9a-f]{4}/$"), timeout=120_000)
    page.evaluate("window.notReloaded = true")
    page.get_by_role("button", name="Stop the search").wait_for()
    page.locator("#live .training").wait_for(timeout=120_000)
    shot(page, "live")
    page.locator("#live svg.chart circle").first.wait_for(timeout=120_000)
    shot(page, "live-curves", full=True)
    late = page.context.new_page()
    late.goto(page.url)
    assert "running" in late.locator("#live").inner_text()
    page.get_by_role("button", name="Run the hidden task").wait_for(timeout=180_000)
    assert page.evaluate("window.notReloaded"), "it was followed by events, not by a reload"
    assert page.locator("#live").inner_text() == ""
    assert page.get_by_role("button", name="Run the hidden task").is_disabled()
    late.locator("#review .next").wait_for(timeout=60_000)
    late.close()
    shot(page, "waiting", full=True)
    page.get_by_label("Approve").check()
    page.get_by_role("button", name="Record the verdict").click()
    page.locator("#review .badge.good").wait_for()
    page.get_by_role("button", name="Run the hidden task").click(timeout=180_000, no_wait_after=True)
    page.get_by_role("button", name="Stop the hidden task").wait_for(timeout=60_000)
    page.locator("#results caption", has_text="Hidden task").wait_for(timeout=180_000)
    assert "submitted" in page.locator("header.top dl.facts").inner_text()
    shot(page, "ended", full=True)


@slow
def test_stop_and_go_on(page: Page, client: Client) -> None:
    """A search is stopped from its page; its page says so and offers to go on."""
    page.get_by_role("link", name="New search").click()
    page.get_by_label("Tests").fill("3")
    page.get_by_label("Profile").select_option("smoke")
    page.get_by_role("button", name="Start the search").click()
    page.get_by_role("button", name="Stop the search").click(timeout=120_000)
    page.get_by_role("button", name="Go on with this search").wait_for(timeout=60_000)
    deadline = time.monotonic() + 20
    while "interrupted" not in page.locator("header.top").inner_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "interrupted" in page.locator("header.top").inner_text()
    shot(page, "stopped")
