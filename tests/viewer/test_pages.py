"""Content of the pages, without a browser."""

import base64
import gzip
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pyro_stitchnet.labels import COLOURS
from pyro_stitchnet.viewer.layers import LAYERS
from pyro_stitchnet.viewer.pages import index_page, report_page, scan_page, served_grid, write_pages
from pyro_stitchnet.viewer.results import ScanResult, find_results, open_result

SCRIPT = "/* the viewer */"


class Page(HTMLParser):
    """The tags of a page, and the text of tags with an id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") or ""

    def handle_data(self, data: str) -> None:
        self.texts[self._inside] = self.texts.get(self._inside, "") + data


def volume(page: Page, name: str) -> nib.Nifti1Image:
    """A volume embedded in a page."""
    compressed = base64.b64decode(page.texts[f"volume-{name}"])
    return nib.Nifti1Image.from_bytes(gzip.decompress(compressed))


def test_a_report_embeds_every_volume_of_predict(predictions: Path) -> None:
    folder = predictions / "scan 2"
    page = Page(report_page(open_result(folder), SCRIPT))
    viewer = json.loads(page.texts["viewer"])
    start, step = viewer["start"], viewer["step"]
    assert step == [1, 1, 1]
    for name, layer in LAYERS.items():
        embedded, whole = (
            volume(page, name),
            nib.Nifti1Image.from_filename(folder / f"{name}.nii.gz"),
        )
        box = tuple(slice(s, s + n) for s, n in zip(start, embedded.shape, strict=True))
        np.testing.assert_allclose(
            embedded.get_fdata(), whole.get_fdata()[box], atol=0.501 / layer.steps
        )
        np.testing.assert_allclose(embedded.affine @ [0, 0, 0, 1], whole.affine @ [*start, 1])
    labels = nib.Nifti1Image.from_filename(folder / "labels.nii.gz").get_fdata()
    assert np.count_nonzero(volume(page, "labels").get_fdata()) == np.count_nonzero(labels)


def test_a_thinned_report_keeps_values_and_positions(predictions: Path) -> None:
    folder = predictions / "scan 2"
    page = Page(report_page(open_result(folder), SCRIPT, voxels=5000))
    viewer = json.loads(page.texts["viewer"])
    embedded, whole = volume(page, "scan"), nib.Nifti1Image.from_filename(folder / "scan.nii.gz")
    kept, values = embedded.get_fdata(), whole.get_fdata()
    assert kept.size <= 5000
    assert max(viewer["step"]) > 1
    for voxel in np.ndindex(kept.shape):
        there = np.array(viewer["start"]) + np.array(viewer["step"]) * voxel
        assert kept[voxel] == values[tuple(there)]
        np.testing.assert_allclose(embedded.affine @ [*voxel, 1], whole.affine @ [*there, 1])
    assert f"in steps of {max(viewer['step'])}" in report_page(open_result(folder), SCRIPT, 5000)


def test_a_report_sends_no_requests_and_runs_only_its_own_scripts(predictions: Path) -> None:
    html = report_page(open_result(predictions / "scan 2"), SCRIPT)
    page = Page(html)
    for tag, attributes in page.tags:
        address = attributes.get("src") or (attributes.get("href") if tag == "link" else None)
        assert address is None or address.startswith("data:"), (tag, attributes)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert policy.count("'sha256-") == 2


def test_no_identifier_is_in_any_page(predictions: Path) -> None:
    results = find_results(predictions)
    pages = [index_page(results, {one.name: "x" for one in results}, served=False)]
    for one in results:
        pages += [report_page(one, SCRIPT), scan_page(one, served_grid(one))]
    for html in pages:
        assert "DOE^" not in html
        for volume in re.findall(r'id="volume-[a-z_]+">([^<]+)<', html):
            assert b"DOE^" not in gzip.decompress(base64.b64decode(volume))
    assert b"DOE^" in gzip.decompress((results[0].folder / "scan.nii.gz").read_bytes())


def test_names_and_warnings_are_text_not_markup(predictions: Path) -> None:
    result = open_result(predictions / 'a <b> & "c"')
    html = report_page(result, SCRIPT)
    assert "<h1>a &lt;b&gt; &amp; &#34;c&#34;</h1>" in html
    assert "grey values &lt;b&gt;unlike&lt;/b&gt; those" in html
    assert "<b>" not in html


def test_values_are_the_reports_and_colours_the_projects(predictions: Path) -> None:
    result = open_result(predictions / "scan 2")
    page = Page(report_page(result, SCRIPT))
    viewer = json.loads(page.texts["viewer"])
    assert {c["value"]: c["colour"] for c in viewer["classes"] if c["value"] > 1} == dict(COLOURS)
    html = report_page(result, SCRIPT)
    assert f"{result.report['volumes_ml']['lung']:.1f}" in html
    assert "guided/model.pt" in html
    assert "CT severity score: made up." in html
    assert '<td class="number">–</td>' in html  # consolidation has no mean density


def test_missing_numbers_are_dashes(tmp_path: Path) -> None:
    values = {"confidence": math.nan, "severity_score": True, "volumes_ml": {"lung": 10**400}}
    result = ScanResult(tmp_path, values)
    assert result.uncertainty is None
    assert result.value("severity_score") is None
    assert result.value("volumes_ml", "lung") is None
    html = index_page([result], {result.name: "x"}, served=True)
    assert html.count('data-value="">–</td>') == 5


def test_missing_volumes_have_no_controls(
    predictions: Path, write_report: Callable[..., None], tmp_path: Path
) -> None:
    for name in ("labels.nii.gz", "lesion_probability.nii.gz"):
        (tmp_path / name).write_bytes((predictions / "scan 2" / name).read_bytes())
    write_report(tmp_path, {})
    html = report_page(open_result(tmp_path), SCRIPT)
    assert "The scan was not saved with the results" in html
    assert 'id="healthy-opacity"' not in html
    assert 'value="uncertainty"' not in html


def test_the_index_lists_finished_scans_the_most_severe_first(predictions: Path) -> None:
    results = find_results(predictions)
    assert {one.name for one in results} == {"scan 2", "scan 10", 'a <b> & "c"'}
    scores = [one.report["severity_score"] for one in results]
    assert scores == sorted(scores, reverse=True)


def test_pages_are_written_beside_the_scans(predictions: Path) -> None:
    pages = list(write_pages(predictions, SCRIPT))
    assert not any(problem for _, problem in pages)
    written = [path.relative_to(predictions) for path, _ in pages]
    assert written[-1] == Path("index.html")
    assert set(written[:-1]) == {Path(one.name, "report.html") for one in find_results(predictions)}
    html = (predictions / "index.html").read_text()
    links = [a["href"] for t, a in Page(html).tags if t == "a" and a["href"] != "#scans"]
    assert "a%20%3Cb%3E%20%26%20%22c%22/report.html" in links


def test_errors_name_the_file_and_the_remedy(
    predictions: Path, write_report: Callable[..., None], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="no finished scan; create some with"):
        find_results(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_results(tmp_path / "nowhere")
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(ValueError, match=r"report\.json: damaged.*predict` again"):
        open_result(tmp_path)
    (tmp_path / "labels.nii.gz").write_bytes(b"")
    write_report(tmp_path, {})
    (tmp_path / "labels.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels\.nii\.gz: missing"):
        report_page(open_result(tmp_path), SCRIPT)
    small = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    nib.save(small, tmp_path / "labels.nii.gz")
    (tmp_path / "scan.nii.gz").write_bytes((predictions / "scan 2/scan.nii.gz").read_bytes())
    write_report(tmp_path, {})
    with pytest.raises(ValueError, match=r"scan\.nii\.gz: \(64, 64, 12\) voxels, but the labels"):
        report_page(open_result(tmp_path), SCRIPT)
    (tmp_path / "scan.nii.gz").write_bytes(b"no volume")
    write_report(tmp_path, {})
    with pytest.raises(ValueError, match=r"scan\.nii\.gz: not a readable NIfTI file"):
        report_page(open_result(tmp_path), SCRIPT)
