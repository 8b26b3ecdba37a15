"""Wheel and sdist hold what they must, and install and run where only they are."""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: object) -> str:
    """Run, where neither PYTHONPATH nor the folder leads to the repository's own package."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=tempfile.gettempdir(),
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that is made of it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    return out


@pytest.mark.slow
def test_packages_hold_the_package_its_types_and_its_licence(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    (sdist,) = built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"pyro_stitchnet/py.typed", "pyro_stitchnet/__init__.pyi"} <= names
    assert any(name.endswith("LICENSE") for name in names)
    assert all(name.startswith(("pyro_stitchnet/", "pyro_stitchnet-")) for name in names)
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "CITATION.cff", "pyro_stitchnet/py.typed"} <= inside
    in_both = {name for name in names if name.startswith("pyro_stitchnet/")}
    assert in_both == {n for n in inside if n.startswith("pyro_stitchnet/") and "." in n}


@pytest.mark.slow
def test_the_wheel_runs_in_an_environment_of_its_own(built: Path, tmp_path: Path) -> None:
    """Dependencies are those of this environment: a fresh torch would be gigabytes."""
    (wheel,) = built.glob("*.whl")
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    site = next(home.glob("lib/python*/site-packages"))
    installer = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install"]
    run(*installer, "--quiet", "--no-deps", "--no-index", wheel)
    # After the environment's own packages, so the wheel's comes first.
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (site / "zz_dependencies.pth").write_text("\n".join(dependencies))
    python, stitchnet = home / "bin" / "python", home / "bin" / "stitchnet"
    where = run(python, "-c", "import pyro_stitchnet; print(pyro_stitchnet.__file__)")
    assert where.startswith(str(site))
    assert "prepare" in run(stitchnet, "--help")
    run(stitchnet, "phantom", "--out", tmp_path / "ct", "--patients", 2, "--size", 64)
    assert len(list((tmp_path / "ct" / "images").iterdir())) == 8
    said = run(stitchnet, "demo", "--out", tmp_path / "demo", "--steps", 2)
    assert "Table 1 on unseen patients" in said
    assert (tmp_path / "demo" / "run" / "model.pt").stat().st_size > 0
