"""The pages: a table of all scans, and one page a scan, as files that need no server or as served.

The HTML, the styles and the scripts are files of `assets/`; here they are only filled.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup

from pyro_stitchnet.figures import COLOURS
from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY, LABELS
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.viewer.layers import Grid, encode, full_grid, lung_grid, present
from pyro_stitchnet.viewer.niivue import VERSION
from pyro_stitchnet.viewer.results import Scan, find_scans

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
"""A page that holds its volumes thins them to this many voxels each: some tens of MB in all."""

SERVED_VOXELS = 160_000_000
"""The same of a served page: 600 slices of 512 x 512; more strain a browser's graphics memory."""

# Healthy lung is not drawn in figures. Here it can be switched on, to see where the lungs were
# found; pink differs from the lesions' green and blue for all eyes.
CLASSES = {
    HEALTHY: ("healthy lung", "#F0A0E0"),
    GGO: ("GGO (ground glass)", COLOURS[GGO]),
    CONSOLIDATION: ("consolidation", COLOURS[CONSOLIDATION]),
}

MAX_ENTROPY = float(np.log(len(LABELS)))  # nats: every label is as likely as the others


def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return resources.files("pyro_stitchnet.viewer").joinpath("assets", name).read_text("utf-8")


def index_page(scans: Sequence[Scan], links: Mapping[str, str], *, served: bool) -> str:
    """The table of all scans.

    Args:
        scans: its rows.
        links: where each scan's page is, by the scan's name.
        served: whether script and styles are files of the server; else they are in the page.
    """
    rows = [{"scan": scan, "link": links[scan.name]} for scan in scans]
    return _filled("index.html.j2", {"index.js": asset("index.js")}, served, rows=rows)


def scan_page(scan: Scan, grid: Grid) -> str:
    """A scan's page as the server gives it: it asks the server for volumes when they are shown."""
    layers = {name: {"url": f"{name}.nii"} for name in present(scan.folder)}
    return _scan(scan, grid, layers, served=True)


def report_page(scan: Scan, niivue: str, voxels: int = EMBEDDED_VOXELS) -> str:
    """A scan's page with all that it needs inside: it opens from a disk and asks no host.

    Args:
        scan: its results.
        niivue: the script, see :func:`~pyro_stitchnet.viewer.niivue.niivue_script`.
        voxels: how many of each volume it may hold.

    Raises:
        FileNotFoundError: the scan has no labels.
        ValueError: a volume cannot be read or differs from the labels in shape.
    """
    grid = lung_grid(scan.folder, voxels)
    volumes = {
        name: base64.b64encode(encode(scan.folder, name, grid, packed=True)).decode("ascii")
        for name in present(scan.folder)
    }
    layers = {name: {"element": f"volume-{name}"} for name in volumes}
    return _scan(scan, grid, layers, served=False, niivue=niivue, volumes=volumes)


def served_grid(scan: Scan) -> Grid:
    """The voxels that the server gives of a scan."""
    return full_grid(scan.folder, SERVED_VOXELS)


def write_pages(folder: Path, niivue: str, voxels: int = EMBEDDED_VOXELS) -> Iterator[Path]:
    """Write ``report.html`` into every scan's folder, then ``index.html``, which leads to them.

    Args:
        folder: what `stitchnet predict` wrote.
        niivue: the script.
        voxels: how many of each volume a page may hold.

    Yields:
        Each file, once it is written.

    Raises:
        FileNotFoundError: the folder holds no finished scan, or one without labels.
        ValueError: a report or a volume cannot be read.
    """
    scans = find_scans(folder)
    for scan in scans:
        write_atomically(scan.folder / REPORT_PAGE, report_page(scan, niivue, voxels))
        yield scan.folder / REPORT_PAGE
    links = {scan.name: f"{quote(scan.name)}/{REPORT_PAGE}" for scan in scans}
    write_atomically(folder / INDEX_PAGE, index_page(scans, links, served=False))
    yield folder / INDEX_PAGE


def _scan(
    scan: Scan,
    grid: Grid,
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
    return _filled(
        "scan.html.j2",
        {NIIVUE_SCRIPT: niivue, "scan.js": asset("scan.js")},
        served,
        scan=scan,
        grid=grid,
        viewer=viewer,
        layers=layers,
        volumes=volumes or {},
        niivue_version=VERSION,
        report_page=REPORT_PAGE,
    )


def _filled(template: str, scripts: Mapping[str, str], served: bool, **content: Any) -> str:
    """A page; what is not served is inside, and its scripts' hashes are the only ones it runs."""
    return (
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


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyro_stitchnet.viewer", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    return environment


def _figure(value: float | None, digits: int = 0) -> str:
    """A number as it is read; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
