"""The report in a real browser, headless: Debian's chromium, or Chrome wherever it lies."""

from __future__ import annotations

import io
import os
import shutil

import numpy as np
import pytest
from matplotlib.image import imread

from nnunetv2_spmc import load_run
from nnunetv2_spmc.data.errors import DataError
from nnunetv2_spmc.reports.case_figure import slice_to_show
from nnunetv2_spmc.reports.niivue import find_niivue
from nnunetv2_spmc.reports.page import write_page
from nnunetv2_spmc.reports.report import gather_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# WebGL 2 without a graphics card
FLAGS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
TIMEOUT_MS = 120_000


def missing(what):
    """Skip, or fail where the tests in the browser have been asked for."""
    if os.environ.get("SPMC_REQUIRE_BROWSER") == "1":
        pytest.fail(f"SPMC_REQUIRE_BROWSER=1, but {what}; run scripts/browser_test_tools.sh")
    pytest.skip(f"{what}; scripts/browser_test_tools.sh installs what is missing")


def find_browser():
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        missing(f"none of {', '.join(BROWSERS)} is installed")
    return executable


@pytest.fixture(scope="module")
def report(phantom_runs):
    try:
        find_niivue(may_fetch=False)
    except DataError as error:
        missing(f"there is no viewer to test: {str(error).rstrip('.')}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(phantom_runs.raw.parent))
        preprocessed = phantom_runs.raw.parents[1] / "nnUNet_preprocessed"
        patch.setenv("nnUNet_preprocessed", str(preprocessed))
        runs = [load_run(phantom_runs.control), load_run(phantom_runs.spmc)]
        return gather_report(runs, num_cases=1, log=lambda message: None)


@pytest.fixture(scope="module")
def report_file(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_page(report, path, title="Report")
    assert not [note for note in report.notes if "viewer" in note]
    return path


class OpenPage:
    """The page in a browser tab, with everything it complained about or asked for."""

    def __init__(self, tab, path):
        self.tab = tab
        self.messages, self.requests = [], []
        tab.on("console", lambda message: self.messages.append(message.text))
        tab.on("pageerror", lambda error: self.messages.append(str(error)))
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_selector("#viewer-canvas[data-loaded]", timeout=TIMEOUT_MS)
        tab.wait_for_timeout(300)

    def pixels(self):
        """The canvas as (height, width, 3) in 0..1."""
        # two frames after what was asked for: then it is drawn, however busy the machine is
        self.tab.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        self.tab.wait_for_timeout(300)
        picture = self.tab.locator("#viewer-canvas").screenshot()
        return imread(io.BytesIO(picture), format="png")[..., :3]

    def slide(self, identifier, value):
        """Set a slider as a user does: the value, then its input event."""
        self.tab.eval_on_selector(
            f"#{identifier}",
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')) }",
            value,
        )

    def text(self, identifier):
        return self.tab.inner_text(f"#{identifier}")


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright import sync_api
    except ImportError:
        missing("playwright is not installed")
    executable = find_browser()
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser, report_file):
    tab = browser.new_page(viewport={"width": 1300, "height": 900})
    yield OpenPage(tab, report_file)
    tab.close()


def colourfulness(pixels):
    """Share of pixels that are not grey."""
    return (np.ptp(pixels, axis=2) > 0.1).mean()


def test_the_page_loads_without_a_message_or_a_request(page, report_file):
    assert page.messages == []
    assert [url for url in page.requests if not url.startswith(("data:", "blob:"))] == [
        report_file.as_uri()
    ]
    assert page.text("viewer-message") == ""


def test_the_viewer_shows_the_overlays_at_the_chosen_opacity(page, report):
    first = next(iter(report.cases.values()))[0]
    annotated = (first.reference > 0).sum(axis=(1, 2)).argmax()  # errors may lie elsewhere
    page.slide("viewer-slice", int(annotated) + 1)
    layers = ("viewer-reference", "viewer-prediction", "viewer-difficulty")
    for layer in layers:
        page.slide(layer, 0)
    plain = page.pixels()
    assert np.ptp(plain) > 0.3
    assert colourfulness(plain) < 0.01
    page.slide("viewer-reference", 60)
    overlaid = page.pixels()
    assert colourfulness(overlaid) > 0.01
    page.slide("viewer-reference", 0)
    assert np.abs(page.pixels() - plain).max() < 0.05


def test_the_slider_moves_the_slice_and_the_arrow_keys_too(page, report):
    first = slice_to_show(next(iter(report.cases.values())))  # that of the figure, from 0
    assert page.text("viewer-slice-text") == f"{first + 1} of 16"
    before = page.pixels()
    page.slide("viewer-slice", 16 if first < 8 else 1)
    assert np.abs(page.pixels() - before).mean() > 0.01
    page.slide("viewer-slice", 3)
    page.tab.focus("#viewer-canvas")
    page.tab.keyboard.press("ArrowUp")
    assert page.text("viewer-slice-text") == "4 of 16"
    page.tab.focus("#viewer-slice")
    page.tab.keyboard.press("ArrowLeft")
    assert page.text("viewer-slice-text") == "3 of 16"


def test_other_runs_and_planes_can_be_chosen(page):
    assert page.tab.is_disabled("#viewer-difficulty")  # the control has no auxiliary branch
    page.tab.select_option("#viewer-run", label="nnUNetTrainerSPMC")
    page.tab.wait_for_selector("#viewer-canvas[data-loaded$='/nnUNetTrainerSPMC']")
    assert page.tab.is_enabled("#viewer-difficulty")
    page.tab.select_option("#viewer-plane", "sagittal")
    assert page.text("viewer-slice-text") == "13 of 24"
    assert page.messages == []


def test_printing_leaves_out_what_paper_cannot_do(page):
    page.tab.emulate_media(media="print")
    assert page.tab.is_hidden("#viewer-canvas")
    assert page.tab.is_visible("#runs-table")
    assert page.tab.is_visible("figure img >> nth=0")


# ---- without a browser ---------------------------------------------------------------------------


@pytest.mark.parametrize("required", ["1", ""])
def test_without_a_browser_tests_skip_unless_they_were_asked_for(monkeypatch, required):
    monkeypatch.setenv("SPMC_REQUIRE_BROWSER", required)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    outcome = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(outcome, match=r"none of chromium.* is installed.*browser_test_tools\.sh"):
        find_browser()
