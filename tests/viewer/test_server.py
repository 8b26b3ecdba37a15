"""The server: its pages and volumes, and what it refuses."""

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest

from pyro_stitchnet.viewer.server import Server


@pytest.fixture(scope="module")
def server(predictions: Path) -> Iterator[Server]:
    (predictions / "secret.txt").write_text("DOE^JANE")
    with Server(predictions, "/* the viewer */") as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def request(
    server: Server, path: str, method: str = "GET", host: str | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send a request with an unnormalised path; return the response and its body."""
    there = urlsplit(server.address).netloc
    connection = http.client.HTTPConnection(there)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or there)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_the_server_listens_on_this_machine_only(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.socket.family == socket.AF_INET


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/scan/scan%202/", "text/html"),
        ("/scan/a%20%3Cb%3E%20%26%20%22c%22/", "text/html"),
        ("/scan/scan%202/report.html", "text/html"),
        ("/static/style.css", "text/css"),
        ("/static/scan.js", "text/javascript"),
        ("/static/index.js", "text/javascript"),
        ("/static/niivue.js", "text/javascript"),
    ],
)
def test_pages_and_their_files_are_served(server: Server, path: str, kind: str) -> None:
    response, body = request(server, path)
    assert response.status == 200
    assert body
    assert response.getheader("Content-Type", "").startswith(kind)
    assert response.getheader("Cache-Control") == "no-store"
    assert "default-src 'self'" in response.getheader("Content-Security-Policy", "")


def test_a_volume_has_the_files_values_and_a_new_header(server: Server, predictions: Path) -> None:
    response, body = request(server, "/scan/scan%2010/scan.nii")
    assert response.status == 200
    assert b"DOE" not in body
    kept = nib.Nifti1Image.from_filename(predictions / "scan 10" / "scan.nii.gz")
    sent = nib.Nifti1Image.from_bytes(body)
    np.testing.assert_array_equal(sent.get_fdata(), kept.get_fdata())
    np.testing.assert_allclose(sent.affine, kept.affine)


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/scans.csv",
        "/scan/../secret.txt",
        "/scan/scan%202/../../secret.txt",
        "/scan/..%2f/report.json",
        "/scan/%2e%2e/secret.txt",
        "/scan/scan%202/report.json",
        "/scan/scan%202/scan.nii.gz",
        "/scan/scan%202/..%2f..%2fsecret.nii",
        "/scan/half/",
        "/scan/nobody/",
        "/scan/nobody%00/",
        "/static/../secret.txt",
        "/static/base.html.j2",
        "//etc/passwd",
    ],
)
def test_no_other_file_is_served(server: Server, path: str) -> None:
    response, body = request(server, path)
    assert response.status == 404
    assert b"DOE" not in body


def test_other_methods_and_host_names_are_refused(server: Server) -> None:
    for method in ("POST", "PUT", "DELETE", "HEAD"):
        assert request(server, "/", method)[0].status == 501
    assert request(server, "/", host="evil.example")[0].status == 421
    assert request(server, "/", host="localhost:8000")[0].status == 200  # through a tunnel


def test_the_response_for_a_damaged_volume_names_the_file(
    server: Server, predictions: Path
) -> None:
    broken = predictions / "broken"
    broken.mkdir()
    (broken / "report.json").write_text("{}")
    (broken / "labels.nii.gz").write_bytes(b"not a volume")
    try:
        response, body = request(server, "/scan/broken/")
    finally:
        for file in broken.iterdir():
            file.unlink()
        broken.rmdir()
    assert response.status == 500
    assert b"labels.nii.gz: not a readable NIfTI file" in body


def test_a_port_in_use_is_refused(server: Server, predictions: Path) -> None:
    with pytest.raises(OSError, match="give another --port"):
        Server(predictions, "", port=server.server_address[1])
