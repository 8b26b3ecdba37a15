"""No file in the results holds anything that identifies a patient, in whatever spelling."""

import gzip
import json
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pyro_stitchnet.prediction.many_scans import predict_scans
from pyro_stitchnet.prediction.one_scan import ModelSource
from pyro_stitchnet.viewer.pages import write_pages

PATIENT = {
    "PatientName": "M\u00fcller-L\u00fcdenscheidt^J\u00f6rg",
    "PatientID": "7731905",
    "PatientBirthDate": "19510713",
    "AccessionNumber": "ACC5544",
    "InstitutionName": "Klinikum Sonnenhof",
    "OperatorsName": "Okonkwo^Ada",
    "SeriesDescription": "Thorax Klinikum Sonnenhof Okonkwo",
    "SpecificCharacterSet": "ISO_IR 192",
    "FrameOfReferenceUID": "1.2.9",
    "PixelSpacing": [4.5, 4.5],
}
OTHER = "Przybylski"  # a name in the header of a middle slice
FOLDERS = (
    "1951-07-13", "13.07.1951", "13071951", "7-13-51", "13_Jul_1951", "mrn-7731905",
    "Mueller_Joerg", "MULLER", unicodedata.normalize("NFD", "M\u00fcller, J\u00f6rg"),
)  # fmt: skip
WORDS = (
    "ller", "denscheidt", "7731905", "acc5544", "sonnenhof", "okonkwo", "przybylski", "joerg",
    "jorg", "rg",
)  # fmt: skip
DATES = ("1951-07-13", "19510713", "13.07.1951", "13071951", "7-13-51", "13_jul_1951", "510713")

Write = Callable[..., Path]


@pytest.fixture
def private(
    phantom_scan: tuple[np.ndarray, ...], write_scan: Write, write_series: Write, tmp_path: Path
) -> Path:
    """Good and bad scans whose folders, names and headers identify a patient."""
    root = tmp_path / "in"
    stored = (phantom_scan[0].T.astype(int) + 1024).clip(0).astype(np.uint16)
    names = [f"M\u00fcller_{k:02}" for k in range(len(stored))]
    step = (0, 0, 20.0)

    def series(folder: str, uid: str) -> list[Path]:
        place = root / folder
        write_series(place, stored, step, names, **PATIENT, SeriesInstanceUID=uid)
        return sorted(place.iterdir())

    for uid, folder in enumerate(FOLDERS[:2]):
        middle = series(f"{folder}/CT", f"1.2.{uid}")[5]
        header = pydicom.dcmread(middle)
        header.PatientName = OTHER
        header.save_as(middle)
    series(FOLDERS[2], "1.2.2")[6].unlink()
    cut = series(f"{FOLDERS[3]}/Jul 13 1951", "1.2.3")[5]
    cut.write_bytes(cut.read_bytes()[:3000])
    for folder in FOLDERS[4:]:
        path = write_scan(root / folder / "M\u00fcller 13.07.1951.nii.gz")
        path.write_bytes(path.read_bytes()[:4000])
    write_scan(root / "Przybylski_7731905.nii.gz")
    return root


def texts(out: Path) -> Iterator[tuple[str, str]]:
    """Names and contents of files, also compressed and escaped ones, in lower case."""
    for path in [out, *out.rglob("*")]:
        yield str(path), path.name.casefold()
        if not path.is_file():
            continue
        data = path.read_bytes()
        contents = [data, gzip.decompress(data)] if path.suffix == ".gz" else [data]
        for content in contents:
            for encoding in ("utf-8", "latin-1", "utf-16-le"):
                yield str(path), content.decode(encoding, "replace").casefold()
        if path.suffix == ".json":
            yield str(path), json.dumps(json.loads(data), ensure_ascii=False).casefold()


def test_no_result_identifies_a_patient(private: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    missing = tmp_path / "Jorg_1951-07-13.nii.gz"
    summary = predict_scans(
        [private, missing], ModelSource(model), out, extras=("scan",), workers=0, progress=False
    )
    assert summary.segmented == 3
    assert len(summary.failed) == 8
    list(write_pages(out, "/* viewer */"))
    assert len(list(out.glob("*/segmentation.dcm"))) == 2
    for path, text in texts(out):
        plain = unicodedata.normalize("NFD", text)
        for word in (*WORDS[:-1], *DATES):
            # Compressed and base64 data hold any short text by chance.
            if path.endswith((".gz", ".html")) and len(word) < 6:
                continue
            assert word not in text, (path, word)
            assert word not in plain, (path, word)
    # The user learns which scan is which from the file beside the results.
    sources = json.loads((tmp_path / "out.sources.json").read_text())
    assert str(missing) in {one["source"] for one in sources["scans"].values()}
    assert set(sources["failed"]) == set(summary.failed["scan"])


def test_identifiers_are_kept_on_demand(private: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scan = private / "Przybylski_7731905.nii.gz"
    predict_scans(
        [scan, private / "MULLER"], ModelSource(model), out, keep_identifiers=True, workers=0,
        progress=False,
    )  # fmt: skip
    assert (out / "Przybylski_7731905" / "labels.nii.gz").is_file()
    assert str(scan) in (out / "scans.csv").read_text()
    assert "MULLER" in (out / "failed.csv").read_text()
