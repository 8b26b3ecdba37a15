"""A local server in place of the repositories, and miniatures of their archives."""

import gzip
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import requests

from pyro_stitchnet.data.phantoms.phantom import PHANTOM_WINDOW, phantom_patient

ZENODO_CASES = (
    "coronacases_001", "coronacases_005", "coronacases_006", "radiopaedia_4_85506_1",
    "radiopaedia_10_85902_1",
)  # fmt: skip
DOIS = {
    "10.6084/m9.figshare.13521488.v2": (
        "https://figshare.com/articles/dataset/MedSeg_Covid_Dataset_1/13521488/2",
        ("tr_im.nii.gz", "tr_mask.nii.gz", "val_im.nii.gz"),
    ),
    "10.6084/m9.figshare.13521509.v2": (
        "https://figshare.com/articles/dataset/Covid_Dataset_2/13521509/2",
        ("rp_im.zip", "rp_lung_msk.zip", "rp_msk.zip"),
    ),
    "10.5281/zenodo.3757476": (
        "https://zenodo.org/records/3757476",
        ("COVID-19-CT-Seg_20cases.zip", "Lung_and_Infection_Mask.zip"),
    ),
}


@dataclass
class Server:
    """Files by name, and the requests for files."""

    address: str = ""
    content: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    broken: int = 0  # responses that end half-way


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    at_once = SimpleNamespace(sleep=lambda seconds: None)  # between pooch's attempts
    monkeypatch.setattr("pooch.core.time", at_once)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            state.requests.append(name)
            if name not in state.content:
                self.send_error(404)
                return
            content = state.content[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if state.broken:
                state.broken -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.address = f"http://127.0.0.1:{http.server_address[1]}/"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def repositories(
    server: Server, miniatures: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> Server:
    """Figshare and Zenodo, which answer as their interfaces do and have the miniatures."""
    get = requests.get
    server.content.update(miniatures)

    def answer(url: str, **options: object) -> requests.Response:
        if url.startswith(server.address):
            return get(url, **options)  # type: ignore[arg-type]
        response = requests.Response()
        response.status_code, response.url = 200, url
        if url.startswith("https://doi.org/"):
            response.url = DOIS[url.removeprefix("https://doi.org/")][0]
        else:
            response._content = json.dumps(_listing(url, server)).encode()
        return response

    monkeypatch.setattr("requests.get", answer)
    return server


def _listing(url: str, server: Server) -> object:
    """What the repository's interface says."""
    for doi, (page, names) in DOIS.items():
        number = doi.removesuffix(".v2").rsplit(".", 1)[1]
        sums = {name: hashlib.md5(server.content.get(name, b"")).hexdigest() for name in names}
        if url == f"https://api.figshare.com/v2/articles?doi={doi}":
            return [{"id": int(number), "url_public_html": page}]
        if url == f"https://api.figshare.com/v2/articles/{number}/versions/2":
            return {
                "files": [
                    {"name": n, "computed_md5": sums[n], "download_url": server.address + n}
                    for n in names
                ]
            }
        if url == f"https://zenodo.org/api/records/{number}":
            return {
                "id": int(number),
                "files": [
                    {"key": n, "checksum": f"md5:{sums[n]}", "links": {"self": server.address + n}}
                    for n in names
                ],
            }
    raise AssertionError(f"no such address: {url}")


@pytest.fixture(scope="session")
def miniatures() -> Mapping[str, bytes]:
    """The archives by name, laid out as published, of phantoms.

    A Radiopaedia volume of Zenodo has the grey values of a window, the others have HU. MedSeg's zip
    archives hold a folder, Zenodo's hold files.
    """
    images, masks = _cut(range(4), 2)
    rp_images, rp_masks = {}, {}
    for number in (1, 2):
        hu, labels = _cut([10 + number], 5)
        rp_images[f"rp_im/{number}.nii.gz"] = _nifti(hu)
        rp_masks[f"rp_msk/{number}.nii.gz"] = _nifti(_medseg(labels))
    cases, case_masks = {}, {}
    for number, case in enumerate(ZENODO_CASES):
        hu, labels = _cut([20 + number], 5)
        if case.startswith("radiopaedia"):
            hu = (np.clip((hu + 1250) / 1500, 0, 1) * 255).astype(np.int16)
        cases[f"{case}.nii.gz"] = _nifti(hu)
        case_masks[f"{case}.nii.gz"] = _nifti(_zenodo(labels))
    return {
        "tr_im.nii.gz": _nifti(images),
        "tr_mask.nii.gz": _nifti(_medseg(masks)),
        "rp_im.zip": _packed(rp_images),
        "rp_msk.zip": _packed(rp_masks),
        "COVID-19-CT-Seg_20cases.zip": _packed(cases),
        "Lung_and_Infection_Mask.zip": _packed(case_masks),
    }


def _cut(patients: range | list[int], slices: int) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels of phantoms, (R, C, S)."""
    cut = [one for patient in patients for one in phantom_patient(patient, slices, size=64)]
    low, high = PHANTOM_WINDOW
    hu = np.stack([one.image for one in cut], -1) * (high - low) + low
    return hu.round().astype(np.int16), np.stack([one.labels for one in cut], -1)


def _medseg(labels: np.ndarray) -> np.ndarray:
    """1 GGO, 2 consolidation."""
    return np.array([0, 0, 1, 2], np.uint8)[labels]


def _zenodo(labels: np.ndarray) -> np.ndarray:
    """1 left lung, 2 right lung, 3 infection."""
    mask = np.array([0, 1, 3, 3], np.uint8)[labels]
    right = np.arange(mask.shape[1])[None, :, None] < mask.shape[1] // 2
    return np.where((mask == 1) & right, np.uint8(2), mask)


def _nifti(array: np.ndarray) -> bytes:
    """A file .nii.gz of an array (R, C, S), 6 x 6 x 30 mm."""
    volume = nib.Nifti1Image(array.swapaxes(0, 1), np.diag([-6.0, -6.0, 30.0, 1.0]))
    return gzip.compress(volume.to_bytes(), mtime=0)


def _packed(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()
