"""Pages in a real browser: Debian's chromium, driven by Playwright, one for a file of tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from feldman.report.page_file import write_page
from feldman.report.run_report import make_report
from feldman.report.selection import PageLimits
from feldman.trials.rundir import run_paths
from tests.pages import image_run, vector_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

HOSTILE_SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="300" height="120" onload="alert(3)">
<script>alert(4)</script><image href="http://192.0.2.1/x.png"/><rect width="300" height="120" fill="green"/></svg>"""

Open = Callable[..., "Opened"]


class Opened:
    """A page in a window of its own, and all that it did besides."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.messages: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self.requests.append(request.url))

    def _dialog(self, dialog: Any) -> None:
        self.messages.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a file of tests, and no longer: while Playwright runs, no test can have an event loop of its own."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: `apt-get install chromium`, as .ci/run does")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `make .venv` does")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def image_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of images whose class names, and a figure of a study, try to break out."""
    run = image_run(tmp_path_factory.mktemp("image-page"))
    (run / "studies").mkdir()
    (run / "studies" / "<b>&amp;.svg").write_text(HOSTILE_SVG)
    return made(run)


@pytest.fixture(scope="session")
def vector_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of points."""
    return made(vector_run(tmp_path_factory.mktemp("vector-page")))


def made(run: Path) -> Path:
    write_page(make_report(run_paths(run), PageLimits())[1], run / "report.html")
    return run / "report.html"


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a file in a new window; in the end nothing may have gone wrong or been fetched on any."""
    opened: list[tuple[Opened, str]] = []

    def call(path: Path, fragment: str = "") -> Opened:
        context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
        context.set_default_timeout(10_000)
        found = Opened(context.new_page())
        opened.append((found, path.as_uri()))
        found.page.goto(path.as_uri() + fragment)
        return found

    yield call
    for found, address in opened:
        found.page.context.close()
        assert found.messages == []
        assert {url.partition("#")[0] for url in found.requests if not url.startswith("data:")} == {address}
