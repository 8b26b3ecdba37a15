"""A read-only HTTP server of the pages, for this machine only."""

import re
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pyro_stitchnet.prediction.output_files import REPORT
from pyro_stitchnet.runtime.text import escaped
from pyro_stitchnet.viewer.layers import available_layers, encode
from pyro_stitchnet.viewer.pages import (
    NIIVUE_SCRIPT,
    REPORT_PAGE,
    asset,
    index_page,
    report_page,
    scan_page,
    served_grid,
)
from pyro_stitchnet.viewer.results import find_results, open_result

__all__ = ["Server"]

HOST = "127.0.0.1"
HTML, JAVASCRIPT, CSS = (f"text/{kind}; charset=utf-8" for kind in ("html", "javascript", "css"))
TEXT, NIFTI = "text/plain; charset=utf-8", "application/octet-stream"
STATIC = {"style.css": CSS, "scan.js": JAVASCRIPT, "index.js": JAVASCRIPT}

HEADERS = {
    "Cache-Control": "no-store",  # keep patient data out of the browser's cache
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

NO_TOKEN = "The address contains a token, so no other user of this machine can read the results."

METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
PRINTABLE = re.compile(r"[!-~]*")
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
RANGE = re.compile(r"\s*bytes\s*=\s*(\d+\s*-\s*\d*|-\s*\d+)(\s*,\s*(\d+\s*-\s*\d*|-\s*\d+))*\s*")

Content = tuple[str, str | bytes]  # media type, body


class Server(ThreadingHTTPServer):
    """Server of the results of ``stitchnet predict`` on 127.0.0.1.

    It serves pages and the volumes they show, but no other file. Requests need its token, because
    other users of the machine can reach the port too. Scans that finish while it runs appear when
    the table is reloaded.

    Attributes:
        folder: the results.
        niivue: NiiVue's script.
        token: the secret in :attr:`address`; the browser keeps it as a cookie.
    """

    daemon_threads = True

    def __init__(self, folder: Path, niivue: str, port: int = 0) -> None:
        """Bind the port; ``serve_forever`` handles requests.

        Args:
            folder: results of ``stitchnet predict``.
            niivue: see :func:`~pyro_stitchnet.viewer.niivue.niivue_script`.
            port: 0 uses any free port.

        Raises:
            FileNotFoundError: the folder has no finished scan.
            OSError: the port is in use.
        """
        find_results(folder)
        self.folder, self.niivue = folder, niivue
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise OSError(f"port {port}: {error.strerror}; give another --port") from error

    @property
    def address(self) -> str:
        """The URL of the table of all scans, with the token."""
        return f"http://{HOST}:{self.server_address[1]}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """The name of the cookie; browsers send the cookies of one host to all its ports."""
        return f"stitchnet-{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Print what went wrong in one line, except if the browser closed the connection."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"a request failed: {type(error).__name__}: {error}", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "stitchnet", ""
    default_request_version = "HTTP/1.0"  # by default a request without version gets no headers
    timeout = 60  # seconds for a request to arrive

    def parse_request(self) -> bool:
        """Refuse a malformed method or header, before the method is looked up."""
        if not super().parse_request():
            return False
        hosts = self.headers.get_all("Host", [])
        if (
            not METHOD.fullmatch(self.command)
            or self.headers.defects
            or len(hosts) > 1
            or (not hosts and self.request_version == "HTTP/1.1")
            or not self.headers.get("Content-Length", "0").strip().isdecimal()
        ):
            self.send_error(HTTPStatus.BAD_REQUEST)
            return False
        return True

    def do_GET(self) -> None:
        try:
            self._answer()
        except _Refused as refused:
            self.send_error(*refused.args)
        except (ConnectionError, TimeoutError):  # the browser closed the connection
            raise
        except Exception as error:  # a damaged scan must not disturb the others
            message = escaped(str(error) or type(error).__name__)
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, (TEXT, message))

    def _answer(self) -> None:
        """Send what the request asks for.

        Raises:
            _Refused: the request is malformed or may not be answered.
            OSError: a file cannot be read, or the connection broke.
            ValueError: a file is damaged.
        """
        path, query = self._address()
        # DNS rebinding: a page of another host must not read the results.
        if self._host() not in (HOST, "localhost"):
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST)
        if not self._is_known(query):
            raise _Refused(
                HTTPStatus.FORBIDDEN, "Open the address that `stitchnet view` printed", NO_TOKEN
            )
        content = self._content(path)
        if content is None:
            raise _Refused(HTTPStatus.NOT_FOUND)
        self._send(HTTPStatus.OK, content)

    def _address(self) -> tuple[list[str], dict[str, list[str]]]:
        """The parts of the path, and the query, decoded.

        Raises:
            _Refused: the request is malformed.
        """
        try:
            if not PRINTABLE.fullmatch(self.path) or BAD_ESCAPE.search(self.path):
                raise ValueError("not an address")
            address = urlsplit(self.path)
            path = [unquote(part, errors="strict") for part in address.path.split("/")[1:]]
            query = parse_qs(address.query, keep_blank_values=True, errors="strict")
            if not address.path.startswith("/") or CONTROL.search("".join(path)):
                raise ValueError("not a path")
            if not RANGE.fullmatch(self.headers.get("Range", "bytes=0-")):
                raise ValueError("not a range")  # whole files are sent for every range
        except ValueError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST) from error
        return path, query

    def _host(self) -> str | None:
        """The host's name that the browser was given.

        Raises:
            _Refused: it is malformed.
        """
        try:
            return urlsplit(f"//{self.headers.get('Host')}").hostname
        except ValueError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST) from error

    def _is_known(self, query: dict[str, list[str]]) -> bool:
        """Whether the address or a cookie holds the token."""
        given = query.get("token", [])
        for cookie in self.headers.get("Cookie", "").split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == self.server.cookie:
                given = [*given, value]
        token = self.server.token.encode()
        return any(secrets.compare_digest(one.encode("utf-8", "replace"), token) for one in given)

    def _content(self, path: list[str]) -> Content | None:
        match path:
            case [""]:
                results = find_results(self.server.folder)
                links = {
                    one.name: f"/scan/{quote(one.name, safe='')}/"
                    for one in results
                    if not one.problem
                }
                return HTML, index_page(results, links, served=True)
            case ["static", name] if name == NIIVUE_SCRIPT:
                return JAVASCRIPT, self.server.niivue
            case ["static", name] if name in STATIC:
                return STATIC[name], asset(name)
            case ["scan", name, file]:
                for folder in self.server.folder.iterdir():
                    if escaped(folder.name) == name:
                        return self._of_scan(folder, file)
        return None

    def _of_scan(self, folder: Path, file: str) -> Content | None:
        if not (folder / REPORT).is_file():
            return None
        result, layer = open_result(folder), file.removesuffix(".nii")
        if file == "":
            return HTML, scan_page(result, served_grid(result))
        if file == REPORT_PAGE:
            return HTML, report_page(result, self.server.niivue)
        if file.endswith(".nii") and layer in available_layers(result):
            return NIFTI, encode(result, layer, served_grid(result), compress=False)
        return None

    def _send(self, status: HTTPStatus, content: Content) -> None:
        kind, body = content
        data = body.encode("utf-8") if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if status == HTTPStatus.OK:
            cookie = f"{self.server.cookie}={self.server.token}"
            self.send_header("Set-Cookie", f"{cookie}; Path=/; HttpOnly; SameSite=Strict")
        self.end_headers()
        self.wfile.write(data)

    def end_headers(self) -> None:
        """Add the headers of every reply, errors included."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: all requests come from the user's own browser."""


class _Refused(Exception):
    """A request that gets an error: the status and the texts for `send_error`."""
