"""The server: its pages and volumes, and what it refuses."""

import http.client
import shutil
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
    server: Server,
    path: str,
    method: str = "GET",
    host: str | None = None,
    token: str | None = None,
    **headers: str,
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send a request with an unnormalised path; return the response and its body."""
    there = urlsplit(server.address).netloc
    connection = http.client.HTTPConnection(there)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or there)
    token = server.token if token is None else token
    connection.putheader("Cookie", f"other=1; stitchnet-{there.split(':')[1]}={token}")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def raw(server: Server, data: bytes) -> bytes:
    """The whole reply to the bytes of a request."""
    with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        parts = iter(lambda: connection.recv(65536), b"")
        return b"".join(parts)


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


def test_only_who_knows_the_token_is_answered(server: Server) -> None:
    address = urlsplit(server.address)
    assert len(server.token) >= 32
    assert address.query == f"token={server.token}"
    for path in ("/", "/static/style.css", "/scan/scan%202/", "/nothing"):
        for wrong in ("", "x", server.token[:-1], server.token + "x", "\xe9"):
            response, body = request(server, path, token=wrong)
            assert response.status == 403
            assert b"scan 2" not in body
        assert request(server, f"{path}?token=x", token="")[0].status == 403
    response, _ = request(server, f"/?{address.query}", token="")
    assert response.status == 200
    cookie = response.getheader("Set-Cookie", "")
    assert cookie.startswith(f"stitchnet-{address.port}={server.token};")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


MALFORMED = [
    b"GET /%zz HTTP/1.1", b"GET /% HTTP/1.1", b"GET /%4 HTTP/1.1", b"GET /a%00b HTTP/1.1",
    b"GET /a\0b HTTP/1.1", b"GET /\xff\xfe HTTP/1.1", b"GET /%ff%fe HTTP/1.1",
    b"GET nothing HTTP/1.1", b"GET http://[ HTTP/1.1", b"GET / x HTTP/1.1", b"GET / HTTP/x.y",
    b"GARBAGE", b"GET /?token=%ff HTTP/1.1", b"GET /scan/%0d%0aX:1/ HTTP/1.1",
    b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHost: [",
    b"G\x00T / HTTP/1.1\r\nHost: 127.0.0.1", b"GET / HTTP/1.1",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: many",
    b"GET / HTTP/1.1\r\nRange: bytes=a-b", b"GET / HTTP/1.1\r\nRange: \xff",
]  # fmt: skip


@pytest.mark.parametrize("line", MALFORMED)
def test_malformed_requests_get_a_400(
    server: Server, line: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    reply = raw(server, line + b"\r\n\r\n")
    assert reply.split(b"\r\n")[0].split()[1] == b"400", reply[:200]
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in reply
    assert capfd.readouterr() == ("", "")


def test_every_reply_has_the_headers_that_protect_the_page(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    host = b"Host: 127.0.0.1\r\n"
    replies = {
        200: b"GET /?token=%s HTTP/1.1\r\n%s\r\n" % (server.token.encode(), host),
        403: b"GET / HTTP/1.1\r\n%s\r\n" % host,
        404: b"GET /nothing?token=%s HTTP/1.1\r\n%s\r\n" % (server.token.encode(), host),
        414: b"GET /%s HTTP/1.1\r\n\r\n" % (b"a" * 70000),
        421: b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        431: b"GET / HTTP/1.1\r\nX: %s\r\n\r\n" % (b"a" * 70000),
        501: b"BREW / HTTP/1.1\r\n%s\r\n" % host,
        505: b"GET / HTTP/9.9\r\n%s\r\n" % host,
    }
    for status, data in replies.items():
        head = raw(server, data).partition(b"\r\n\r\n")[0].decode()
        assert head.split()[1] == str(status)
        for name in ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"):
            assert head.count(f"\r\n{name}: ") == 1, (status, name)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_scan_is_listed_and_disturbs_no_other(server: Server, predictions: Path) -> None:
    broken = predictions / "broken"
    shutil.copytree(predictions / "scan 2", broken)
    try:
        labels = bytearray((broken / "labels.nii.gz").read_bytes())
        labels[len(labels) // 2] ^= 1
        (broken / "labels.nii.gz").write_bytes(labels)
        for path in ("/scan/broken/", "/scan/broken/report.html", "/scan/broken/labels.nii"):
            response, body = request(server, path)
            assert response.status == 500
            assert b"labels.nii.gz: damaged or edited" in body
        assert request(server, "/scan/broken/scan.nii")[0].status == 500  # on the labels' grid
        for content in (b"{", b"[" * 100_000, b"{}", b"null", b'{"a": NaN}', b"\xff"):
            (broken / "report.json").write_bytes(content)
            response, body = request(server, "/")
            assert response.status == 200
            assert b"Unreadable: broken/report.json: " in body
            assert b"/scan/scan%202/" in body
            assert b"/scan/broken/" not in body
            assert request(server, "/scan/broken/")[0].status == 500
    finally:
        shutil.rmtree(broken)


def test_a_port_in_use_is_refused(server: Server, predictions: Path) -> None:
    with pytest.raises(OSError, match="give another --port"):
        Server(predictions, "", port=server.server_address[1])
