"""The command that shows results: `view`."""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from pyro_stitchnet.runtime.ranges import Positive

__all__ = ["view"]

Port = Annotated[int, Field(ge=0, le=65535)]


def view(
    folder: tyro.conf.Positional[Path],
    write: bool = False,
    port: Port = 0,
    browser: bool = True,
    niivue: Path | None = None,
    voxels: Positive = 12.0,
) -> None:
    """Show segmented scans in the browser: a table of all scans, and images of each.

    Args:
        folder: results of `stitchnet predict`.
        write: write pages that need no server instead: report.html for each scan, and index.html.
        port: on 127.0.0.1; 0 uses any free port. The printed address contains a token, without
            which the server refuses requests.
        browser: open the browser.
        niivue: the tarball of NiiVue from npm, for a machine without internet access.
        voxels: millions of voxels of each volume in a report.html; larger volumes are thinned.
    """
    import webbrowser

    from pyro_stitchnet.viewer.niivue import niivue_script
    from pyro_stitchnet.viewer.pages import write_pages
    from pyro_stitchnet.viewer.results import find_results
    from pyro_stitchnet.viewer.server import Server

    find_results(folder)  # so that a wrong folder is refused before NiiVue is downloaded
    script = niivue_script(niivue)
    if write:
        problems = 0
        for path, problem in write_pages(folder, script, max(1, round(1e6 * voxels))):
            print(f"{path}: {problem}" if problem else path, file=sys.stderr if problem else None)
            problems += bool(problem)
        if problems:
            print(f"scans without a page: {problems}", file=sys.stderr)
            sys.exit(1)
        return
    with Server(folder, script, port) as server:
        print(f"{server.address} shows {folder}; Ctrl-C stops it", flush=True)
        if browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
