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
    """Look at segmented scans in the browser: a table of all, and each with its figures.

    Args:
        folder: what `stitchnet predict` wrote.
        write: write pages that need no server instead, report.html beside each scan and index.html.
        port: on 127.0.0.1; 0 is any that is free.
        browser: open the browser.
        niivue: npm's tarball of NiiVue, on a machine without internet.
        voxels: millions of voxels that a report.html holds of each volume; thinned above.
    """
    import webbrowser

    from pyro_stitchnet.viewer.niivue import niivue_script
    from pyro_stitchnet.viewer.pages import write_pages
    from pyro_stitchnet.viewer.results import find_scans
    from pyro_stitchnet.viewer.server import Server

    if voxels <= 0:
        raise ValueError(f"--voxels is {voxels}; give millions of voxels, more than 0")
    find_scans(folder)  # refused before anything is fetched
    script = niivue_script(niivue)
    if write:
        for page in write_pages(folder, script, round(1e6 * voxels)):
            print(page)
        return
    with Server(folder, script, port) as server:
        print(f"{server.address} shows {folder}; Ctrl-C ends it", flush=True)
        if browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
