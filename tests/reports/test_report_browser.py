"""The report in a real browser, headless: Debian's chromium, or Chrome wherever it lies."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from nibabel.orientations import io_orientation
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from skimage.io import imsave

from nnunetv2_spmc import load_run
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.reports import viewer_volumes
from nnunetv2_spmc.reports.case_figure import draw_case, extent_mm, slice_to_show
from nnunetv2_spmc.reports.content import Options
from nnunetv2_spmc.reports.niivue import find_niivue
from nnunetv2_spmc.reports.orientation import header_affine
from nnunetv2_spmc.reports.page import write_page
from nnunetv2_spmc.reports.report import gather_report
from tests.reports.oriented_scans import NAMES, side_of_block, view_of, write_scan

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
        return gather_report(runs, Options(num_cases=1, test_cases=False, log=lambda message: None))


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

    def shown_case(self):
        return self.tab.get_attribute("#viewer-canvas", "data-loaded").split("/")[0]

    def choose_case(self, case):
        self.tab.select_option("#viewer-case", label=case)
        self.tab.wait_for_selector(f"#viewer-canvas[data-loaded^='{case}/']")

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
    assert page.tab.is_disabled("#viewer-difficulty")  # the control has no second branch
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


def test_everything_folded_is_unfolded_on_paper_and_folded_again(page):
    page.tab.emulate_media(media="print")
    page.tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.tab.is_visible("#cases-table")
    page.tab.evaluate("dispatchEvent(new Event('afterprint'))")
    page.tab.emulate_media(media="screen")
    assert page.tab.is_hidden("#cases-table")


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_fits_the_window_and_its_pictures_can_be_read(page, width):
    page.tab.set_viewport_size({"width": width, "height": 800})
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    for selector, least in ((".panels img", 150), (".figures img", 300)):
        widths = page.tab.eval_on_selector_all(
            selector, "pictures => pictures.map(picture => picture.clientWidth)"
        )
        assert min(widths) >= least
        assert max(widths) <= width
    canvas = page.tab.locator("#viewer-canvas").bounding_box()
    assert canvas["height"] > 300
    size = page.tab.evaluate("parseFloat(getComputedStyle(document.body).fontSize)")
    assert size >= 14


def test_the_text_is_dark_on_white(page):
    colors = page.tab.evaluate(
        "() => { const style = getComputedStyle(document.body);"
        " return [style.backgroundColor, style.color].map(c => c.match(/\\d+/g).map(Number)) }"
    )
    assert colors[0] == [255, 255, 255]
    assert max(colors[1]) < 60


# ---- without a browser ---------------------------------------------------------------------------


@pytest.mark.parametrize("required", ["1", ""])
def test_without_a_browser_tests_skip_unless_they_were_asked_for(monkeypatch, required):
    monkeypatch.setenv("SPMC_REQUIRE_BROWSER", required)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    outcome = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(outcome, match=r"none of chromium.* is installed.*browser_test_tools\.sh"):
        find_browser()


# ---- orientation ---------------------------------------------------------------------------------

PLANES = {"axial": ("RLAP", 2), "coronal": ("RLSI", 1), "sagittal": ("APSI", 0)}
LAYERS = ("reference", "prediction", "doubt", "difficulty")
# NiiVue's methods that write a letter at the left, right, top or bottom of a slice
WRITERS = {"left": "Right", "right": "Left", "top": "Below", "bottom": "Above"}


@pytest.fixture(scope="module")
def oriented_views(tmp_path_factory):
    """Name -> the same body in a file of that orientation; and a picture, which has none."""
    folder = tmp_path_factory.mktemp("scans")
    views = {name: view_of(write_scan(folder, name)) for name in NAMES}
    picture = np.full((30, 20), 80, np.uint8)
    picture[:5, -6:] = 0  # so that the rest is grey, not black
    picture[20:26, 2:9] = 200  # on the left, below
    imsave(folder / "picture.png", picture, check_contrast=False)
    return views | {"picture": view_of(folder / "picture.png", NaturalImage2DIO)}


@pytest.fixture(scope="module")
def open_cases(browser, report, oriented_views, tmp_path_factory):
    """Open a page with a case for every orientation."""
    tabs = []

    def open_page():
        path = tmp_path_factory.mktemp("report") / "report.html"
        cases = {name: [view] for name, view in oriented_views.items()}
        write_page(replace(report, cases=cases), path, title="Report")
        tabs.append(browser.new_page(viewport={"width": 1000, "height": 700}))
        return OpenPage(tabs[-1], path)

    yield open_page
    for tab in tabs:
        tab.close()


@pytest.fixture(scope="module")
def oriented(open_cases):
    return open_cases()


def planes_of_figures(page):
    """Case -> the plane in which its figure is drawn."""
    cases = json.loads(page.tab.text_content("#viewer-data"))["cases"]
    return {case["name"]: case["plane"] for case in cases}


def choose(page, case):
    """Choose a case, at the slice and in the plane of its figure, without overlays."""
    if page.shown_case() == case:
        page.choose_case("LPS" if case == "picture" else "picture")
    page.tab.select_option("#viewer-plane", planes_of_figures(page)[page.shown_case()])
    page.choose_case(case)
    for layer in LAYERS:
        page.slide(f"viewer-{layer}", 0)


def scan_in(pixels):
    """The part of the canvas in which the scan is drawn."""
    inside = pixels.max(axis=2) > 0.05
    rows = np.flatnonzero(inside.mean(axis=1) > 0.1)
    columns = np.flatnonzero(inside.mean(axis=0) > 0.1)
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def letters(page):
    """The letters that NiiVue writes into a slice, left, right, top, bottom."""
    return page.tab.evaluate(
        """writers => {
            const prototype = niivue.Niivue.prototype, written = {};
            for (const [side, name] of Object.entries(writers)) {
                const method = prototype[`drawText${name}`];
                prototype[`drawText${name}`] = function (place, text, ...rest) {
                    written[side] = text;
                    return method.call(this, place, text, ...rest);
                };
            }
            const slider = document.getElementById("viewer-slice");
            slider.dispatchEvent(new Event("input")); // draws
            return Object.keys(writers).map(side => written[side] ?? "").join("");
        }""",
        WRITERS,
    )


@pytest.mark.parametrize("name", [*NAMES, "picture"])
def test_the_viewer_opens_with_the_slice_of_the_figure_drawn_as_there(
    oriented, oriented_views, name
):
    view = oriented_views[name]
    choose(oriented, name)
    figure = draw_case(name, [view])
    plane = view.display.plane or "axial"
    assert oriented.tab.input_value("#viewer-plane") == plane
    number = oriented.text("viewer-slice-text")
    assert f"{name}, slice {number}" == figure.get_suptitle().removesuffix(f" ({plane})")
    pixels = scan_in(oriented.pixels())
    assert len(pixels) / len(pixels[0]) == pytest.approx(np.divide(*extent_mm(view)), rel=0.05)
    drawn = figure.axes[0].images[0]
    expected = drawn.norm(drawn.get_array())
    rows, columns = (
        ((np.arange(size) + 0.5) / size * full).astype(int)
        for size, full in zip(expected.shape, pixels.shape[:2], strict=True)
    )
    shown = pixels[np.ix_(rows, columns)].min(axis=2)
    assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.9
    for mirrored in (expected[::-1], expected[:, ::-1]):
        assert np.corrcoef(shown.ravel(), mirrored.ravel())[0, 1] < 0.5


@pytest.mark.parametrize("name", ["LAS", "PSR", "tilted"])
def test_right_anterior_and_superior_are_on_the_left_and_on_top(oriented, oriented_views, name):
    view = oriented_views[name]
    choose(oriented, name)
    array_axes = 2 - io_orientation(header_affine(view.properties))[:, 0].argsort()  # of R, A, S
    for plane, (sides, world_axis) in PLANES.items():
        oriented.tab.select_option("#viewer-plane", plane)
        axis = array_axes[world_axis]
        block = np.flatnonzero(np.moveaxis(view.reference, axis, 0).any(axis=(1, 2)))
        oriented.slide("viewer-slice", int(block[1]) + 1)
        assert oriented.text("viewer-slice-text") == f"{block[1] + 1} of {view.image.shape[axis]}"
        assert side_of_block(scan_in(oriented.pixels()).min(axis=2)) == ("left", "top")
        assert letters(oriented) == sides


@pytest.mark.parametrize("name", ["LAS", "PSR", "short axis"])
def test_overlays_lie_on_what_they_were_made_from(oriented, name):
    choose(oriented, name)
    block = scan_in(oriented.pixels()).min(axis=2) > 0.65
    for layer in LAYERS:
        oriented.slide(f"viewer-{layer}", 100)
        coloured = np.ptp(scan_in(oriented.pixels()), axis=2) > 0.3
        oriented.slide(f"viewer-{layer}", 0)
        assert (block & coloured).sum() > 0.9 * coloured.sum()
        assert (block & coloured).sum() > 0.5 * block.sum()


def test_a_picture_without_an_orientation_gets_no_letters(oriented):
    choose(oriented, "picture")
    assert side_of_block(scan_in(oriented.pixels()).min(axis=2)) == ("left", "bottom")
    assert letters(oriented) == ""
    choose(oriented, "LAS")
    assert letters(oriented) == "RLAP"


def test_slices_of_reduced_scans_are_named_by_those_of_the_scan(
    open_cases, oriented_views, monkeypatch
):
    monkeypatch.setattr(viewer_volumes, "reduction_factors", lambda shape: (3, 2, 2))
    page = open_cases()
    for name in ("LPS", "RPI", "PSR"):
        choose(page, name)
        named, _, total = page.text("viewer-slice-text").partition(" of ")
        first, _, last = named.partition("-")
        shown = slice_to_show([oriented_views[name]]) + 1
        assert int(first) <= shown <= int(last)
        assert int(last) - int(first) <= 2
        assert int(total) == len(oriented_views[name].image)
        page.slide("viewer-slice", page.tab.get_attribute("#viewer-slice", "max"))
        last_shown = page.text("viewer-slice-text").partition(" of ")[0].split("-")[-1]
        assert last_shown == total


def test_another_case_is_opened_in_the_plane_of_its_figure_unless_one_was_chosen(oriented):
    choose(oriented, "LAS")
    choose(oriented, "PSR")
    assert oriented.tab.input_value("#viewer-plane") == "sagittal"
    oriented.tab.select_option("#viewer-plane", "coronal")
    oriented.choose_case("LPS")
    assert oriented.tab.input_value("#viewer-plane") == "coronal"
