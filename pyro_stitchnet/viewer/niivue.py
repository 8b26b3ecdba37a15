"""NiiVue, the WebGL viewer of the pages, downloaded on first use into the user's cache.

NiiVue (BSD-2-Clause) is one file of JavaScript in an npm package. The version is pinned and the
SHA-256 of every tarball checked, so a page never runs other code.
"""

import tarfile
from pathlib import Path

import pooch
import requests

__all__ = ["SHA256", "URL", "VERSION", "niivue_script"]

VERSION = "0.69.0"
"""The pinned version on npm."""

URL = f"https://registry.npmjs.org/@niivue/niivue/-/niivue-{VERSION}.tgz"
SHA256 = "6e9a6a471b428eb3b258a0086beca9187d95e43a781a39e8a519c6da246af485"

MEMBER = "package/dist/niivue.umd.js"  # defines the global `niivue`; sends no requests


def niivue_script(file: Path | None = None, *, cache: Path | None = None) -> str:
    """Return NiiVue as one script.

    Args:
        file: npm's tarball, for a machine without internet access. By default it is read from the
            cache, after a download if it is missing there.
        cache: folder for the tarball; by default the user's cache.

    Raises:
        FileNotFoundError: ``file`` does not exist.
        ValueError: the tarball is not that of the pinned version.
        ConnectionError: npm's registry cannot be reached.
    """
    remedy = f"download {URL} on another machine and pass it with --niivue FILE"
    if file is None:
        tarball = _fetch(Path(cache or pooch.os_cache("pyro_stitchnet")), remedy)
    else:
        tarball = file
        if not tarball.is_file():
            raise FileNotFoundError(f"{tarball}: no such file; {remedy}")
        if not pooch.hashes.hash_matches(tarball, SHA256):
            raise ValueError(f"{tarball}: not npm's tarball of NiiVue {VERSION}; {remedy}")
    with tarfile.open(tarball) as content:
        member = content.extractfile(MEMBER)
        assert member is not None  # guaranteed by the checksum
        return member.read().decode("utf-8")


def _fetch(cache: Path, remedy: str) -> Path:
    """The tarball in the cache, after a download if it is missing."""
    name = URL.rsplit("/", 1)[1]
    try:
        return Path(pooch.retrieve(URL, f"sha256:{SHA256}", fname=name, path=cache))
    except requests.RequestException as error:
        raise ConnectionError(f"{URL}: cannot be downloaded ({error}); {remedy}") from error
    except ValueError as error:
        raise ValueError(f"{URL}: unexpected content ({error}); {remedy}") from error
