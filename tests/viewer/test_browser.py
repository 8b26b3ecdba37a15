"""The pages in Chromium: standalone and served, with mouse and keyboard."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pyro_stitchnet.labels import CONSOLIDATION, GGO
from pyro_stitchnet.viewer.pages import write_pages
from pyro_stitchnet.viewer.server import Server

pytestmark = pytest.mark.slow

SCAN = "scan 2"
TIMEOUT = 60  # seconds; generous for busy machines
Opener = Callable[[str], Any]


@pytest.fixture(scope="session")
def written(predictions: Path, niivue: str) -> Path:
    list(write_pages(predictions, niivue))
    return predictions


@pytest.fixture(scope="session")
def served(predictions: Path, niivue: str) -> Iterator[str]:
    with Server(predictions, niivue) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running.address
        running.shutdown()
        thread.join()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Opener]:
    """Open an address; at the end fail after console messages or requests to other hosts."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    messages: list[str] = []
    requests: list[str] = []
    context.set_default_timeout(1000 * TIMEOUT)
    context.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
    context.on("weberror", lambda error: messages.append(str(error.error)))
    context.on("request", lambda request: requests.append(request.url))

    def go(address: str) -> Any:
        page = context.new_page()
        page.goto(address)
        return page

    yield go
    context.close()
    assert [text for text in messages if "GPU stall due to ReadPixels" not in text] == []
    hosts = {url.split("/")[2] for url in requests if url.startswith("http")}
    assert all(host.startswith("127.0.0.1:") for host in hosts)
    assert all(url.split(":")[0] in ("http", "file", "data", "blob") for url in requests)


@pytest.fixture
def page(visit: Opener, written: Path) -> Any:
    """A report from the disk with its images loaded."""
    return ready(visit((written / SCAN / "report.html").as_uri()))


def ready(page: Any) -> Any:
    page.wait_for_selector("html[data-ready=yes]", timeout=1000 * TIMEOUT)
    return page


def values(page: Any) -> dict[str, str]:
    """The values at the crosshair."""
    return dict(
        page.eval_on_selector_all(
            "#values tr", "rows => rows.map(r => [r.dataset.name, r.cells[1].textContent])"
        )
    )


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a condition; controls take effect after some milliseconds."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def voxel(page: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values(page)["voxel"].split(","))


def colours(page: Any) -> np.ndarray:
    """The pixels of a new rendering, (rows, columns, RGB)."""
    width, height, flat = page.evaluate(
        """() => {
            viewer.drawScene();
            const gl = viewer.gl, [w, h] = [gl.drawingBufferWidth, gl.drawingBufferHeight];
            const pixels = new Uint8Array(4 * w * h);
            gl.readPixels(0, 0, w, h, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
            let text = "";
            for (let i = 0; i < pixels.length; i += 4) {
                text += String.fromCharCode(pixels[i], pixels[i + 1], pixels[i + 2]);
            }
            return [w, h, text];
        }"""
    )
    return (
        np.frombuffer(flat.encode("latin-1"), np.uint8).reshape(height, width, 3)[::-1].astype(int)
    )


def green(page: Any) -> int:
    """Number of green pixels, the colour of GGO."""
    red, tint, blue = np.moveaxis(colours(page), -1, 0)
    return int(((tint - red > 40) & (tint - blue > 40)).sum())


def blue(page: Any) -> int:
    red, tint, more = np.moveaxis(colours(page), -1, 0)
    return int(((more - red > 40) & (more - tint > 40)).sum())


def hu(value: float) -> str:
    return f"{value:.0f} HU".replace("-", "−")


def truth(folder: Path, name: str) -> np.ndarray:
    volume: np.ndarray = nib.Nifti1Image.from_filename(folder / SCAN / f"{name}.nii.gz").get_fdata()
    return volume


def test_a_report_opens_from_the_disk_at_its_most_severe_slice(page: Any, written: Path) -> None:
    assert page.url.startswith("file://")
    assert page.inner_text("h1") == SCAN
    lesions = np.isin(truth(written, "labels"), (GGO, CONSOLIDATION))
    assert voxel(page)[2] == lesions.sum((0, 1)).argmax()
    assert lesions[voxel(page)]
    assert page.inner_text("#status") == ""
    assert green(page) > 500


def test_a_click_shows_the_values_of_the_files_voxel(page: Any, written: Path) -> None:
    page.check("[name=map][value=uncertainty]")
    page.wait_for_selector("#values tr[data-name=uncertainty]")
    affine = nib.Nifti1Image.from_filename(written / SCAN / "scan.nii.gz").affine
    names = ["outside the lungs", "healthy lung", "GGO (ground glass)", "consolidation"]
    box = page.locator("#image").bounding_box()
    for across, down in [(0.3, 0.55), (0.42, 0.5), (0.66, 0.7), (0.72, 0.5)]:
        page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])
        at, shown = voxel(page), values(page)
        assert shown["scan"] == hu(truth(written, "scan")[at])
        assert shown["uncertainty"] == f"{truth(written, 'uncertainty')[at]:.3f} nats"
        assert shown["labels"] == names[int(truth(written, "labels")[at])]
        mm = (affine @ [*at, 1])[:3]
        sides = zip(mm, ("LR", "PA", "IS"), strict=True)
        assert shown["position"] == ", ".join(f"{abs(v):.1f} {s[int(v >= 0)]}" for v, s in sides)
        # Radiological convention: the left of the image is the right of the patient, x > 0.
        assert mm[0] > 0 if across < 0.5 else mm[0] < 0


def test_the_crosshair_moves_to_the_click(page: Any, written: Path) -> None:
    """Rows and columns of the image are those of the slice, seen from the feet."""
    box = page.locator("#image").bounding_box()
    voxels = []
    for x, y in [(0.4, 0.4), (0.6, 0.4), (0.4, 0.6)]:
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        voxels.append(voxel(page))
    assert page.evaluate("scrollY") == 0  # the page does not scroll at a click
    first, right, below = voxels
    assert right[0] > first[0]
    assert right[1:] == first[1:]
    assert below[1] > first[1]
    assert (below[0], below[2]) == (first[0], first[2])


def test_wheel_keys_slider_and_buttons_change_the_slice(page: Any, written: Path) -> None:
    k = voxel(page)[2]
    page.hover("#image")
    page.mouse.wheel(0, 100)
    assert abs(voxel(page)[2] - k) == 1
    page.focus("#image")
    page.keyboard.press("Home")
    assert voxel(page)[2] == 0
    page.keyboard.press("PageUp")
    assert voxel(page)[2] == 1
    page.keyboard.press("End")
    last = voxel(page)[2]
    assert last == truth(written, "labels").shape[2] - 1
    page.keyboard.press("PageDown")
    assert voxel(page)[2] == last - 1
    i, j, _ = voxel(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert voxel(page)[:2] == (i + 1, j + 1)
    page.focus("#slice")
    page.keyboard.press("Home")
    assert voxel(page)[2] == 0
    assert page.get_attribute("#slice", "aria-valuetext").startswith("Slice 1 of 12, from the feet")
    lesions = np.isin(truth(written, "labels"), (GGO, CONSOLIDATION))
    page.click("#next")
    assert voxel(page)[2] == next(k for k in range(1, 12) if lesions[..., k].any())


def test_each_class_can_be_hidden(page: Any, written: Path) -> None:
    labels = truth(written, "labels")
    both = ((labels == GGO).any((0, 1)) & (labels == CONSOLIDATION).any((0, 1))).nonzero()[0]
    page.focus("#slice")
    page.locator("#slice").fill(str(both[0] + 1))
    assert voxel(page)[2] == both[0]
    before = green(page), blue(page)
    assert min(before) > 100
    page.uncheck(f"[name=class][value='{GGO}']")
    eventually(lambda: green(page) < 0.02 * before[0])
    assert blue(page) > 0.8 * before[1]
    page.uncheck(f"[name=class][value='{CONSOLIDATION}']")
    eventually(lambda: blue(page) < 0.02 * before[1])
    plain = colours(page)
    page.check(f"[name=class][value='{GGO}']")
    page.locator("#label-opacity").fill("0")
    eventually(lambda: bool((colours(page) == plain).all()))


def test_the_counterfactual_is_drawn_over_the_scan(page: Any, written: Path) -> None:
    for label in (GGO, CONSOLIDATION):
        page.uncheck(f"[name=class][value='{label}']")
    eventually(lambda: green(page) == 0)
    scan = colours(page).mean()
    page.locator("#healthy-opacity").fill("100")
    page.wait_for_selector("#values tr[data-name=healthy]")
    # Lesions are brighter than the lung without them.
    eventually(lambda: colours(page).mean() < scan - 1)
    assert values(page)["healthy"] == hu(truth(written, "healthy")[voxel(page)])


def test_other_views_scroll_along_their_own_axis(page: Any) -> None:
    for view, axis in {"coronal": 1, "sagittal": 0, "all": 2}.items():
        page.check(f"[name=view][value={view}]")
        before = voxel(page)
        page.focus("#image")
        page.keyboard.press("PageUp")
        after = voxel(page)
        assert [a for a in range(3) if after[a] != before[a]] == [axis]
    page.click("button[type=reset]")
    eventually(lambda: bool(page.is_checked("[name=view][value=axial]")))


def test_every_control_has_a_name_and_is_reachable_by_keyboard(page: Any) -> None:
    page.check("[name=map][value=uncertainty]")
    page.wait_for_selector("#map-opacity")
    page.focus(".skip")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.name || ''")
        )
    order = ["image", "previous", "slice", "next", "view", "window", "class", "label-opacity"]
    order += ["map", "map-opacity", "healthy-opacity"]
    places = [reached.index(name) for name in order]
    assert places == sorted(places)
    unnamed = page.evaluate(
        """() => Array.from(document.querySelectorAll("input, select, button, canvas[tabindex]"))
            .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
            .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    page.focus("#image")
    page.keyboard.press("PageUp")
    eventually(lambda: page.inner_text("#spoken").startswith("Slice "))
    assert " HU" in page.inner_text("#spoken")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_contrast_of_every_text_is_sufficient(
    visit: Opener, written: Path, scheme: str
) -> None:
    for file in (f"{SCAN}/report.html", "index.html"):
        page = visit((written / file).as_uri())
        page.emulate_media(color_scheme=scheme)
        worst = page.evaluate(
            """() => {
                const light = (c) => {
                    const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map((v) => {
                        v /= 255;
                        return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
                    });
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const behind = (e) => {
                    const c = getComputedStyle(e).backgroundColor;
                    return c === "rgba(0, 0, 0, 0)" && e !== document.documentElement
                        ? behind(e.parentElement) : c;
                };
                const worded = (node) => node.nodeType === Node.TEXT_NODE && node.data.trim();
                const ratios = Array.from(document.body.querySelectorAll("*:not(script)"))
                    .filter((e) => Array.from(e.childNodes).some(worded))
                    .map((e) => {
                        const [a, b] = [getComputedStyle(e).color, behind(e)].map(light);
                        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                    });
                return Math.min(...ratios);
            }"""
        )
        assert worst >= 4.5  # WCAG 2.2, level AA


def test_pages_fit_the_width_of_a_phone(visit: Opener, written: Path) -> None:
    for file in (f"{SCAN}/report.html", "index.html"):
        page = visit((written / file).as_uri())
        page.set_viewport_size({"width": 360, "height": 700})
        page.wait_for_function("document.documentElement.scrollWidth <= 360")


def test_the_index_sorts_searches_and_links_to_reports(visit: Opener, written: Path) -> None:
    page = visit((written / "index.html").as_uri())

    def names() -> list[str]:
        shown: list[str] = page.locator("#scans tbody tr:not([hidden]) a").all_inner_texts()
        return shown

    reports = {p.parent.name: json.loads(p.read_text()) for p in written.glob("*/report.json")}

    def by(key: str) -> list[str]:
        return sorted(reports, key=lambda name: -reports[name][key])

    assert names() == by("severity_score")
    page.click("[data-column=uncertainty]")
    assert names() == by("confidence")[::-1]
    assert page.locator("[data-column=uncertainty]").evaluate("b => b.parentElement.ariaSort") == (
        "descending"
    )
    page.click("[data-column=uncertainty]")
    assert names() == by("confidence")
    page.focus("[data-column=severity]")
    page.keyboard.press("Enter")
    assert names() == by("severity_score")
    page.click("[data-column=name]")
    assert names() == ['a <b> & "c"', "scan 2", "scan 10"]
    page.fill("#find", "scan")
    assert names() == ["scan 2", "scan 10"]
    assert page.inner_text("#count") == "2 of 3 scans"
    page.click("text=scan 10")
    ready(page)
    assert page.inner_text("h1") == "scan 10"


def test_the_served_page_shows_the_same_values(
    visit: Opener, served: str, predictions: Path
) -> None:
    page = visit(served)
    page.click(f"text={SCAN}")
    ready(page)
    box = page.locator("#image").bounding_box()
    page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    at = voxel(page)
    assert values(page)["scan"] == hu(truth(predictions, "scan")[at])
    page.locator("#healthy-opacity").fill("50")
    page.wait_for_selector("#values tr[data-name=healthy]")
    page.check("[name=map][value=lesion_probability]")
    page.wait_for_selector("#values tr[data-name=lesion_probability]")
    with page.expect_download() as download:
        page.click("text=Save this page as one file")
    assert download.value.suggested_filename == f"{SCAN}.html"


def test_without_webgl_the_page_explains_it_and_shows_measurements(
    visit: Opener, written: Path
) -> None:
    page = visit("about:blank")
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((written / SCAN / "report.html").as_uri())
    page.wait_for_selector("text=does not support WebGL 2")
    assert page.is_visible("#measurements table")
