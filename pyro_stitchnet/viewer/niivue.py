"""NiiVue, the WebGL viewer of the pages: fetched once, kept in the user's cache, never in the repo.

NiiVue (BSD-2-Clause) is one file of JavaScript in a package of npm's. Its version is pinned and its
SHA-256 compared, also for a file that was brought by hand, so a page never runs other code.
"""

import tarfile
from pathlib import Path

import pooch
import requests

__all__ = ["SHA256", "URL", "VERSION", "niivue_script"]

VERSION = "0.69.0"
"""Of NiiVue, as npm has it."""

URL = f"https://registry.npmjs.org/@niivue/niivue/-/niivue-{VERSION}.tgz"
SHA256 = "6e9a6a471b428eb3b258a0086beca9187d95e43a781a39e8a519c6da246af485"

MEMBER = "package/dist/niivue.umd.js"  # defines the global `niivue`; asks no host for anything


def niivue_script(file: Path | None = None, *, cache: Path | None = None) -> str:
    """NiiVue as one script.

    Args:
        file: npm's tarball of it, on a machine without internet; else it is fetched where the
            cache does not have it.
        cache: folder for the tarball; the user's cache if left out.

    Raises:
        FileNotFoundError: ``file`` is not there.
        ValueError: the tarball is not the pinned one.
        ConnectionError: npm's registry cannot be reached.
    """
    by_hand = f"get {URL} on another machine and name it with --niivue FILE"
    if file is None:
        tarball = _fetch(Path(cache or pooch.os_cache("pyro_stitchnet")), by_hand)
    else:
        tarball = file
        if not tarball.is_file():
            raise FileNotFoundError(f"{tarball}: no such file; {by_hand}")
        if not pooch.hashes.hash_matches(tarball, SHA256):
            raise ValueError(f"{tarball}: not NiiVue {VERSION} as npm gives it; {by_hand}")
    with tarfile.open(tarball) as content:
        member = content.extractfile(MEMBER)
        assert member is not None  # the checksum says what is inside
        return member.read().decode("utf-8")


def _fetch(cache: Path, by_hand: str) -> Path:
    """The tarball in the cache."""
    name = URL.rsplit("/", 1)[1]
    try:
        return Path(pooch.retrieve(URL, f"sha256:{SHA256}", fname=name, path=cache))
    except requests.RequestException as error:
        raise ConnectionError(f"{URL}: cannot be fetched ({error}); {by_hand}") from error
    except ValueError as error:
        raise ValueError(f"{URL}: not what it should be ({error}); {by_hand}") from error
