"""Downloads from a local server: checksums, broken downloads, unsafe archives."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from pyro_stitchnet.data.sources import SOURCES, Archive, Source
from pyro_stitchnet.data.sources import download as module
from pyro_stitchnet.data.sources.download import download
from pyro_stitchnet.runtime.locks import LOCK


@dataclass
class Server:
    """Files by name, and the requests."""

    address: str = ""
    content: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    broken: int = 0  # responses that end half-way


def files(folder: Path) -> list[str]:
    """Return the names in a folder, without the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK)


def packed(**members: str) -> bytes:
    """Return a zip archive of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between pooch's attempts
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


def offer(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    checksums: dict[str, str] | None = None,
    **contents: bytes,
) -> None:
    """Register a source "test" of archives NAME.zip, served with these contents."""
    archives = []
    for name, content in contents.items():
        server.content[f"{name}.zip"] = content
        checksum = (checksums or {}).get(name, f"sha256:{hashlib.sha256(content).hexdigest()}")
        archives.append(Archive(f"{name}.zip", server.address, checksum))
    source = Source(
        name="test",
        title="A test",
        layout="",
        landmarks=(),
        rule={},
        find=lambda folder: iter(()),
        licence="CC0",
        citation="Author 1999",
        homepage="http://example.org",
        archives=tuple(archives),
    )
    monkeypatch.setitem(SOURCES, "test", source)


def test_archives_become_folders_without_leftovers(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    offer(
        server, monkeypatch, images=packed(**{"a.txt": "one", "sub/b.txt": "two"}), masks=packed()
    )
    out = tmp_path / "new" / "out"
    assert download("test", out) == [out / "images", out / "masks"]
    assert (out / "images" / "a.txt").read_text() == "one"
    assert (out / "images" / "sub" / "b.txt").read_text() == "two"
    assert files(out) == ["images", "masks"]
    assert "Licence: CC0\nPlease cite: Author 1999" in capsys.readouterr().out


def test_a_second_call_downloads_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, images=packed(a="1"))
    first = download("test", tmp_path)
    assert server.requests == ["images.zip"]
    assert download("test", tmp_path) == first
    assert server.requests == ["images.zip"]


def test_an_interrupted_download_resumes_with_the_missing_archives(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, images=packed(a="1"), masks=packed(a="2"))
    masks = server.content.pop("masks.zip")
    with pytest.raises(
        ConnectionError, match=r"masks\.zip: cannot be fetched .*404.*put masks\.zip"
    ):
        download("test", tmp_path)
    assert files(tmp_path) == ["images"]
    server.content["masks.zip"] = masks
    server.requests.clear()
    download("test", tmp_path)
    assert server.requests == ["masks.zip"]
    assert (tmp_path / "masks" / "a").read_text() == "2"


def test_a_truncated_response_is_requested_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, images=packed(a="1" * 1000))
    server.broken = 1
    download("test", tmp_path)
    assert server.requests == ["images.zip"] * 2
    assert (tmp_path / "images" / "a").read_text() == "1" * 1000


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, {"images": f"md5:{'0' * 32}"}, images=packed(a="1"))
    with pytest.raises(
        ValueError,
        match=r"images\.zip: the file from http.* a wrong checksum .*put images\.zip from http://ex",
    ):
        download("test", tmp_path)
    assert files(tmp_path) == []
    assert len(server.requests) == 1 + module.RETRIES


def test_an_archive_from_another_download_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, images=packed(a="1"))
    (tmp_path / "images.zip").write_bytes(server.content.pop("images.zip"))
    download("test", tmp_path)
    assert server.requests == []
    assert (tmp_path / "images" / "a").read_text() == "1"


@pytest.mark.parametrize("member", ["../evil", "a/../../evil", "/evil", "C:\\evil", "..\\evil"])
def test_an_archive_that_would_write_outside_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, member: str
) -> None:
    offer(server, monkeypatch, images=packed(**{"a": "1", member: "2"}))
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"images\.zip: its member .*evil' would be written outs"):
        download("test", out)
    assert files(out) == ["images.zip"]
    assert not list(tmp_path.rglob("*evil*"))


def test_a_file_that_is_no_archive_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, images=b"no zip")
    with pytest.raises(ValueError, match=r"images\.zip: not a readable zip archive .*; remove it"):
        download("test", tmp_path)
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "nothing: unknown source; choose one of .*zenodo"),
        ("mosmed", "mosmed: cannot be downloaded; get it at https://mosmed"),
        ("folder", "folder: cannot be downloaded; it is your own data"),
    ],
)
def test_the_error_for_other_data_names_their_place(
    tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        download(name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_checksums_come_from_zenodo(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archives = SOURCES["zenodo"].archives
    content = {archive.file: packed(**{"x.nii.gz": archive.file}) for archive in archives}

    class Repository:
        """A stand-in for Zenodo, whose files are on the local server."""

        def populate_registry(self, shelf: pooch.Pooch) -> None:
            for file, data in content.items():
                shelf.registry[file] = f"md5:{hashlib.md5(data).hexdigest()}"

        def download_url(self, file_name: str) -> str:
            return server.address + file_name

    dois = []

    def repository(doi: str, **_: object) -> Repository:
        dois.append(doi.strip("/"))
        return Repository()

    monkeypatch.setattr("pooch.core.doi_to_repository", repository)
    monkeypatch.setattr("pooch.downloaders.doi_to_repository", repository)
    server.content.update(content)
    first, second = download("zenodo", tmp_path)
    assert set(dois) == {"10.5281/zenodo.3757476"}
    assert (first / "x.nii.gz").read_text() == "COVID-19-CT-Seg_20cases.zip"
    assert (second / "x.nii.gz").read_text() == "Lung_and_Infection_Mask.zip"


@pytest.mark.parametrize("error", [ValueError, KeyError])
def test_missing_checksums_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[Exception]
) -> None:
    def without_files(doi: str, **_: object) -> None:
        raise error("no files")

    monkeypatch.setattr("pooch.core.doi_to_repository", without_files)
    with pytest.raises(ConnectionError, match=r"doi:10\.5281/zenodo\.3757476/ does not list its"):
        download("zenodo", tmp_path)
    assert files(tmp_path) == []
