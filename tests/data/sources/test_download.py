"""Downloads from a local server: questions, checksums, broken downloads, unsafe archives."""

import errno
import hashlib
import io
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from pooch import HTTPDownloader

from pyro_stitchnet.cli import datasets
from pyro_stitchnet.data.sources import SOURCES, Archive, Source, detect
from pyro_stitchnet.data.sources import download as module
from pyro_stitchnet.data.sources.download import download
from pyro_stitchnet.runtime.locks import LOCK


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


def offer(
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
    checksums: dict[str, str] | None = None,
    megabytes: int = 0,
    **contents: bytes,
) -> None:
    """Register a source "test" of archives NAME.zip, served with these contents."""
    archives = []
    for name, content in contents.items():
        server.content[f"{name}.zip"] = content
        checksum = (checksums or {}).get(name, f"sha256:{hashlib.sha256(content).hexdigest()}")
        archives.append(Archive(f"{name}.zip", server.address, checksum, megabytes))
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
    server: Any,
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
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, images=packed(a="1"))
    first = download("test", tmp_path)
    assert server.requests == ["images.zip"]
    assert download("test", tmp_path) == first
    assert server.requests == ["images.zip"]


def test_an_interrupted_download_resumes_with_the_missing_archives(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, images=packed(a="1" * 1000))
    server.broken = 1
    download("test", tmp_path)
    assert server.requests == ["images.zip"] * 2
    assert (tmp_path / "images" / "a").read_text() == "1" * 1000


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, images=packed(a="1"))
    (tmp_path / "images.zip").write_bytes(server.content.pop("images.zip"))
    download("test", tmp_path)
    assert server.requests == []
    assert (tmp_path / "images" / "a").read_text() == "1"


@pytest.mark.parametrize("member", ["../evil", "a/../../evil", "/evil", "C:\\evil", "..\\evil"])
def test_an_archive_that_would_write_outside_is_refused(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, member: str
) -> None:
    offer(server, monkeypatch, images=packed(**{"a": "1", member: "2"}))
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"images\.zip: its member .*evil' would be written outs"):
        download("test", out)
    assert files(out) == ["images.zip"]
    assert not list(tmp_path.rglob("*evil*"))


def test_an_archive_by_hand_with_a_wrong_checksum_is_refused_and_kept(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, images=packed(a="1"))
    (tmp_path / "images.zip").write_bytes(server.content["images.zip"][:-9])
    with pytest.raises(ValueError, match=r"images\.zip: has a wrong checksum; remove it"):
        download("test", tmp_path)
    assert files(tmp_path) == ["images.zip"]
    assert server.requests == []


def test_a_damaged_member_is_refused(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = packed(a="x" * 100)
    offer(server, monkeypatch, images=content.replace(b"x" * 100, b"x" * 99 + b"y"))
    with pytest.raises(ValueError, match=r"images\.zip: not a readable zip archive \(Bad CRC"):
        download("test", tmp_path)
    assert files(tmp_path) == ["images.zip"]


def test_a_file_that_is_no_archive_is_refused(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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


ERRORS = [ValueError, KeyError, IndexError, requests.ConnectionError]


@pytest.mark.parametrize("error", ERRORS)
def test_missing_checksums_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[Exception]
) -> None:
    without_checksums(monkeypatch, error)
    with pytest.raises(ConnectionError, match=r"doi:10\.5281/zenodo\.3757476/ does not list its"):
        download("zenodo", tmp_path)
    assert files(tmp_path) == []


def without_checksums(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(doi: str, **_: object) -> None:
        raise error("no files")

    monkeypatch.setattr("pooch.core.doi_to_repository", fail)


def test_a_file_that_the_repository_does_not_list_is_named(
    repositories: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Archive("gone.zip", "doi:10.5281/zenodo.3757476/")
    monkeypatch.setitem(SOURCES, "zenodo", replace(SOURCES["zenodo"], archives=(gone,)))
    with pytest.raises(ConnectionError, match=r"gone\.zip: .*its list of files lacks this one"):
        download("zenodo", tmp_path)


def test_archives_by_hand_are_enough_without_a_connection(
    miniatures: Mapping[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    without_checksums(monkeypatch, requests.ConnectionError)
    for archive in SOURCES["zenodo"].archives:
        (tmp_path / archive.file).write_bytes(miniatures[archive.file])
    asked: list[str] = []
    download("zenodo", tmp_path, confirm=asked.append)
    assert asked == []
    assert files(tmp_path) == ["COVID-19-CT-Seg_20cases", "Lung_and_Infection_Mask"]
    assert "Lung_and_Infection_Mask.zip: used unchecked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("zenodo", ["COVID-19-CT-Seg_20cases", "Lung_and_Infection_Mask"]),
        ("medseg", ["rp_im", "rp_msk", "tr_im.nii.gz", "tr_mask.nii.gz"]),
    ],
)
def test_a_public_dataset_is_downloaded_by_doi_and_found(
    repositories: Any, tmp_path: Path, name: str, shown: list[str]
) -> None:
    download(name, tmp_path)
    assert files(tmp_path) == shown
    assert detect(tmp_path) is SOURCES[name]
    scans = list(SOURCES[name].find(tmp_path))
    assert len(scans) == {"zenodo": 5, "medseg": 3}[name]
    assert all(isinstance(scan.mask, Path) and scan.mask.is_file() for scan in scans)
    fetched = sorted(repositories.requests)
    assert fetched == sorted(archive.file for archive in SOURCES[name].archives)
    download(name, tmp_path)
    assert len(repositories.requests) == len(fetched), "the second call downloads nothing"


def test_the_folder_that_macos_adds_is_left_out(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, im=packed(**{"im/1": "1", "__MACOSX/im/._1": "2", "im/im/2": "3"}))
    download("test", tmp_path)
    assert files(tmp_path / "im") == ["1", "im"]


def test_licence_and_citation_come_before_the_question_and_the_question_before_the_download(
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    offer(server, monkeypatch, megabytes=60, images=packed(a="1"), masks=packed(b="2"))
    out = tmp_path / "out"

    def refuse(question: str) -> None:
        assert question == f"Download images.zip, masks.zip, about 120 MB, to {out}?"
        assert "Licence: CC0\nPlease cite: Author 1999" in capsys.readouterr().out
        raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no$"):
        download("test", out, confirm=refuse)
    assert server.requests == []
    assert not out.exists()


def test_there_is_no_question_about_a_small_rest(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, megabytes=60, images=packed(a="1"), masks=packed(b="2"))
    (tmp_path / "images").mkdir()
    asked: list[str] = []
    download("test", tmp_path, confirm=asked.append)
    assert asked == []
    assert server.requests == ["masks.zip"]


@pytest.mark.parametrize(
    ("terminal", "answer", "agreed"),
    [(False, "y", False), (True, "", False), (True, "n", False), (True, "Y", True)],
)
def test_the_command_asks_on_a_terminal_only(
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    terminal: bool,
    answer: str,
    agreed: bool,
) -> None:
    offer(server, monkeypatch, megabytes=200, images=packed(a="1"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer + "\n"))
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    with nullcontext() if agreed else pytest.raises(ValueError, match="give --yes"):
        download("test", tmp_path / "out", confirm=datasets._confirm)
    assert (tmp_path / "out").exists() == agreed


def test_without_a_terminal_the_command_names_the_option(
    repositories: Any, refused: Callable[..., str], stitchnet: Callable[..., None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = refused("download", "zenodo", "--out", out)
    assert "about 1115 MB" in said
    assert "no terminal to ask on; give --yes" in said
    assert repositories.requests == []
    stitchnet("download", "zenodo", "--out", out, "--yes")
    assert (out / "Lung_and_Infection_Mask" / "coronacases_001.nii.gz").is_file()


def test_too_small_a_disk_is_refused_before_the_download(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, megabytes=60, images=packed(a="1"), masks=packed(b="2"))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=179 * 10**6))
    with pytest.raises(OSError, match=r"out: 179 MB are free .* needs about 180 MB; free some"):
        download("test", tmp_path / "out")
    assert server.requests == []
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=180 * 10**6))
    download("test", tmp_path / "out")


def test_a_disk_that_fills_up_is_an_error_with_a_remedy(
    repositories: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refused: Callable[..., str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pooch.downloaders.HTTPDownloader.__call__", full)
    said = refused("download", "medseg", "--out", tmp_path / "out", "--yes")
    assert f"{tmp_path / 'out'}: no space left on the disk; free some space" in said
    assert files(tmp_path / "out") == []


def test_what_a_killed_run_left_is_removed(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(server, monkeypatch, images=packed(a="1"))
    left = tmp_path / ".images.zip.abc.tmp"
    left.mkdir()
    (left / "half").write_text("1")
    download("test", tmp_path)
    assert files(tmp_path) == ["images"]


def test_an_interrupt_leaves_nothing_half_done_and_the_same_command_continues(
    repositories: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetch = HTTPDownloader.__call__

    def interrupted(self: HTTPDownloader, url: str, output_file: str, pooch: object) -> None:
        fetch(self, url, output_file, pooch)
        if url.endswith("rp_im.zip"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HTTPDownloader, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            download("medseg", tmp_path)
    assert files(tmp_path) == ["tr_im.nii.gz", "tr_mask.nii.gz"]
    repositories.requests.clear()
    download("medseg", tmp_path)
    assert repositories.requests == ["rp_im.zip", "rp_msk.zip"]
