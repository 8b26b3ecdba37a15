"""The pages: a table of all scans, and one page per scan, served or as standalone files.

HTML templates, styles and scripts are files in ``assets/``.
"""

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup

from pyro_stitchnet.labels import COLOURS, CONSOLIDATION, GGO, HEALTHY, LABELS
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.text import escaped
from pyro_stitchnet.viewer.layers import (
    LayerGrid,
    available_layers,
    encode,
    full_grid,
    lung_grid,
)
from pyro_stitchnet.viewer.niivue import VERSION
from pyro_stitchnet.viewer.results import ScanResult, find_results, problem_of

__all__ = [
    "EMBEDDED_VOXELS",
    "INDEX_PAGE",
    "NIIVUE_SCRIPT",
    "REPORT_PAGE",
    "SERVED_VOXELS",
    "asset",
    "index_page",
    "report_page",
    "scan_page",
    "served_grid",
    "write_pages",
]

INDEX_PAGE, REPORT_PAGE, NIIVUE_SCRIPT = "index.html", "report.html", "niivue.js"

EMBEDDED_VOXELS = 12_000_000
"""Voxels of each volume in a standalone page: some tens of MB in total. Larger ones are thinned."""

SERVED_VOXELS = 160_000_000
"""The same for a served page: 600 slices of 512 x 512, within a browser's graphics memory."""

# Figures do not draw healthy lung. Here it is optional and shows the segmented lungs; pink is
# distinct from the lesions' green and blue, also with a colour vision deficiency.
CLASSES = {
    HEALTHY: ("healthy lung", "#F0A0E0"),
    GGO: ("GGO (ground glass)", COLOURS[GGO]),
    CONSOLIDATION: ("consolidation", COLOURS[CONSOLIDATION]),
}

MAX_ENTROPY = float(np.log(len(LABELS)))  # nats; all labels equally likely


def asset(name: str) -> str:
    """The text of a file in ``assets/``."""
    return resources.files("pyro_stitchnet.viewer").joinpath("assets", name).read_text("utf-8")


def index_page(results: Sequence[ScanResult], links: Mapping[str, str], *, served: bool) -> str:
    """Render the table of all scans.

    Args:
        results: its rows.
        links: the URL of each scan's page, by the scan's name; none for a scan with a problem.
        served: whether the server provides script and styles; otherwise they are embedded.
    """
    rows = [{"result": one, "link": links.get(one.name)} for one in results]
    return _render("index.html.j2", {"index.js": asset("index.js")}, served, rows=rows)


def scan_page(result: ScanResult, grid: LayerGrid) -> str:
    """Render a scan's page for the server; it loads volumes from the server when they are shown."""
    layers = {name: {"url": f"{name}.nii"} for name in available_layers(result)}
    return _scan_page(result, grid, layers, served=True)


def report_page(result: ScanResult, niivue: str, voxels: int = EMBEDDED_VOXELS) -> str:
    """Render a scan's page with everything embedded, so that it opens offline as one file.

    Args:
        result: the scan's results.
        niivue: the script, see :func:`~pyro_stitchnet.viewer.niivue.niivue_script`.
        voxels: maximum number of voxels of each volume.

    Raises:
        FileNotFoundError: the scan has no labels.
        ValueError: a volume cannot be read or differs from the labels in shape.
    """
    grid = lung_grid(result, voxels)
    volumes = {
        name: base64.b64encode(encode(result, name, grid, compress=True)).decode("ascii")
        for name in available_layers(result)
    }
    layers = {name: {"element": f"volume-{name}"} for name in volumes}
    return _scan_page(result, grid, layers, served=False, niivue=niivue, volumes=volumes)


def served_grid(result: ScanResult) -> LayerGrid:
    """The voxels of a scan that the server provides."""
    return full_grid(result, SERVED_VOXELS)


def write_pages(
    folder: Path, niivue: str, voxels: int = EMBEDDED_VOXELS
) -> Iterator[tuple[Path, str]]:
    """Write ``report.html`` into every scan's folder, then ``index.html`` with links to them.

    Args:
        folder: results of ``stitchnet predict``.
        niivue: the script.
        voxels: maximum number of voxels of each volume in a page.

    Yields:
        Each file, after it is written, with ""; or a scan's folder and why it has no page.

    Raises:
        FileNotFoundError: the folder has no finished scan.
        OSError: a page cannot be written.
    """
    results = find_results(folder)
    for number, one in enumerate(results):
        path = one.folder / REPORT_PAGE
        try:
            page = "" if one.problem else report_page(one, niivue, voxels)
        except (OSError, ValueError) as error:
            one = replace(one, problem=problem_of(error, one.folder))
        if one.problem:
            path.unlink(missing_ok=True)  # it would show what was before the damage
            results[number] = one
            yield one.folder, one.problem
            continue
        write_atomically(path, page)
        yield path, ""
    links = {
        one.name: f"{quote(os.fsencode(one.folder.name))}/{REPORT_PAGE}"
        for one in results
        if not one.problem
    }
    write_atomically(folder / INDEX_PAGE, index_page(results, links, served=False))
    yield folder / INDEX_PAGE, ""


def _scan_page(
    result: ScanResult,
    grid: LayerGrid,
    layers: Mapping[str, Mapping[str, str]],
    *,
    served: bool,
    niivue: str = "",
    volumes: Mapping[str, str] | None = None,
) -> str:
    viewer = {
        "layers": layers,
        "classes": [
            {"value": value, "name": name, "colour": colour}
            for value, (name, colour) in CLASSES.items()
        ],
        "maxEntropy": MAX_ENTROPY,
        "start": grid.start,
        "step": grid.step,
    }
    return _render(
        "scan.html.j2",
        {NIIVUE_SCRIPT: niivue, "scan.js": asset("scan.js")},
        served,
        result=result,
        grid=grid,
        viewer=viewer,
        layers=layers,
        volumes=volumes or {},
        niivue_version=VERSION,
        report_page=REPORT_PAGE,
    )


def _render(template: str, scripts: Mapping[str, str], served: bool, **content: Any) -> str:
    """Render a page. A standalone page embeds its scripts and may run only those, by their hash."""
    page = (
        _environment()
        .get_template(template)
        .render(
            served=served,
            scripts={name: Markup(text) for name, text in scripts.items()},
            style=Markup(asset("style.css")),
            hashes=" ".join(f"'sha256-{_digest(text)}'" for text in scripts.values()),
            **content,
        )
    )
    return escaped(page)  # a report's text may not be UTF-8


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyro_stitchnet.viewer", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment


def _number(value: float | None, digits: int = 0) -> str:
    """A number with a typographic minus sign; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
