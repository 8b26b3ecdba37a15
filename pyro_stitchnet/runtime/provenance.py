"""Where a number comes from: what to keep beside every result."""

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

__all__ = ["provenance"]

CPUS = Path("/proc/cpuinfo")


def provenance() -> dict[str, str]:
    """The command, date, code, machine and versions of this process, as plain strings."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": f"{_processor()}, {platform.system()}, {torch.get_num_threads()} threads"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("pyro-stitchnet", "torch", "pyro-ppl")},
    }


def _processor() -> str:
    """The CPU's name where the system tells it: another one rounds otherwise."""
    try:
        told = CPUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        told = []
    names = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    return names[0] if names and names[0] else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The checkout's commit, marked where files differ from it; "none" outside a checkout."""

    def git(*arguments: str) -> str:
        here = Path(__file__)
        run = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    try:
        # Installed into an environment inside another project, that project's commit is not ours.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "none"
