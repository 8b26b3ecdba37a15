"""The origin of results: command, code, machine and versions."""

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pyro_stitchnet.runtime.text import escaped

__all__ = ["provenance"]

CPUS = Path("/proc/cpuinfo")


def provenance() -> dict[str, str]:
    """Return the command, date, commit, machine and versions of this process, as strings.

    Paths in the working folder are relative to it.
    """
    arguments = [one.removeprefix(f"{Path.cwd()}/") for one in sys.argv[1:]]
    return {
        "command": escaped(shlex.join([Path(sys.argv[0]).name, *arguments])),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": COMMIT,
        "machine": f"{_processor()}, {platform.system()}, {torch.get_num_threads()} threads"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("pyro-stitchnet", "torch", "pyro-ppl")},
    }


def _processor() -> str:
    """Return the name of the CPU, on which rounding depends; its architecture if unknown."""
    try:
        lines = CPUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Return the checkout's commit, marked if files differ from it; "none" outside a checkout."""

    def git(*arguments: str) -> str:
        here = Path(__file__)
        run = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    try:
        # Raises if the package is installed inside another project's checkout.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "none"


COMMIT = _commit()
"""The commit at the start of the process. A checkout may change during a run, its code does not."""
