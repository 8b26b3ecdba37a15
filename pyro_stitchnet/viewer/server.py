"""A read-only HTTP server of the pages, for this machine only."""

import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pyro_stitchnet.prediction.output_files import REPORT
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
NIFTI = "application/octet-stream"
STATIC = {"style.css": CSS, "scan.js": JAVASCRIPT, "index.js": JAVASCRIPT}

HEADERS = {
    "Cache-Control": "no-store",  # keep patient data out of the browser's cache
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Content = tuple[str, str | bytes]  # media type, body


class Server(ThreadingHTTPServer):
    """Server of the results of ``stitchnet predict`` on 127.0.0.1.

    It serves pages and the volumes they show, but no other file. Scans that finish while it runs
    appear when the table is reloaded.

    Attributes:
        folder: the results.
        niivue: NiiVue's script.
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
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise OSError(f"port {port}: {error.strerror}; give another --port") from error

    @property
    def address(self) -> str:
        """The URL of the table of all scans."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Print a traceback, except if the browser closed the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "stitchnet", ""

    def do_GET(self) -> None:
        # DNS rebinding: a page of another host must not read the results.
        if urlsplit(f"//{self.headers.get('Host')}").hostname not in (HOST, "localhost"):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        try:
            content = self._content([unquote(p) for p in urlsplit(self.path).path.split("/")[1:]])
        except (OSError, ValueError) as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, ("text/plain; charset=utf-8", str(error)))
            return
        if content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(HTTPStatus.OK, content)

    def _content(self, path: list[str]) -> Content | None:
        match path:
            case [""]:
                results = find_results(self.server.folder)
                links = {one.name: f"/scan/{quote(one.name, safe='')}/" for one in results}
                return HTML, index_page(results, links, served=True)
            case ["static", name] if name == NIIVUE_SCRIPT:
                return JAVASCRIPT, self.server.niivue
            case ["static", name] if name in STATIC:
                return STATIC[name], asset(name)
            case ["scan", name, file] if name in {p.name for p in self.server.folder.iterdir()}:
                return self._of_scan(self.server.folder / name, file)
        return None

    def _of_scan(self, folder: Path, file: str) -> Content | None:
        if not (folder / REPORT).is_file():
            return None
        result, layer = open_result(folder), file.removesuffix(".nii")
        if file == "":
            return HTML, scan_page(result, served_grid(result))
        if file == REPORT_PAGE:
            return HTML, report_page(result, self.server.niivue)
        if file.endswith(".nii") and layer in available_layers(folder):
            return NIFTI, encode(folder, layer, served_grid(result), compress=False)
        return None

    def _send(self, status: HTTPStatus, content: Content) -> None:
        kind, body = content
        data = body.encode("utf-8") if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: all requests come from the user's own browser."""
