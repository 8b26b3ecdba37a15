"""The command that shows results: `view`."""

from pathlib import Path

import tyro

__all__ = ["view"]


def view(
    folder: tyro.conf.Positional[Path],
    write: bool = False,
    port: int = 0,
    browser: bool = True,
    niivue: Path | None = None,
    voxels: float = 12.0,
) -> None:
    """Show segmented scans in the browser: a table of all scans, and images of each.

    Args:
        folder: results of `stitchnet predict`.
        write: write pages that need no server instead: report.html for each scan, and index.html.
        port: on 127.0.0.1; 0 uses any free port.
        browser: open the browser.
        niivue: npm's tarball of NiiVue, for a machine without internet access.
        voxels: millions of voxels of each volume in a report.html; larger volumes are thinned.
    """
    import webbrowser

    from pyro_stitchnet.viewer.niivue import niivue_script
    from pyro_stitchnet.viewer.pages import write_pages
    from pyro_stitchnet.viewer.results import find_results
    from pyro_stitchnet.viewer.server import Server

    if voxels <= 0:
        raise ValueError(f"--voxels is {voxels}; give millions of voxels, more than 0")
    find_results(folder)  # so that a wrong folder is refused before NiiVue is downloaded
    script = niivue_script(niivue)
    if write:
        for page in write_pages(folder, script, round(1e6 * voxels)):
            print(page)
        return
    with Server(folder, script, port) as server:
        print(f"{server.address} shows {folder}; Ctrl-C stops it", flush=True)
        if browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
