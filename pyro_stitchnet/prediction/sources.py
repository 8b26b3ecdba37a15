"""The names of scans in the results, and their paths, kept in a file next to the results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pyro_stitchnet.prediction.inputs import ScanInput, assign_names, identity
from pyro_stitchnet.prediction.output_files import FAILED, REPORT, SCANS, sources_file
from pyro_stitchnet.runtime.checksums import read_json, write_json

__all__ = ["Sources"]

PAGE = "index.html"  # of `stitchnet view --write`


class Sources:
    """The file of :func:`~pyro_stitchnet.prediction.output_files.sources_file`.

    It holds the path, series and state of every scan by its name, and why scans failed, with all
    paths.

    Attributes:
        changed: names of scans with a result, whose files changed after they were named.
    """

    def __init__(self, out: Path) -> None:
        """Read the file, if there is one.

        Args:
            out: the results folder.

        Raises:
            FileNotFoundError: there are results, but no such file.
            ValueError: the file is damaged.
        """
        self.out, self.path = out, sources_file(out)
        self.changed: set[str] = set()
        self._scans: dict[str, dict[str, str]] = {}
        if self.path.exists():
            try:
                self._scans = read_json(self.path)["scans"]
            except ValueError as error:
                raise ValueError(
                    f"{str(error).partition(';')[0]}; choose another --out, or restore the file"
                ) from error
        elif any(out.glob(f"*/{REPORT}")):
            raise FileNotFoundError(
                f"{self.path}: missing, and only it has the paths of the scans in {out}; restore "
                "the file, or choose another --out"
            )

    def add(self, scans: Sequence[ScanInput], *, keep_identifiers: bool) -> dict[str, ScanInput]:
        """Name scans, see :func:`~pyro_stitchnet.prediction.inputs.assign_names`, and write that.

        Raises:
            OSError: the file cannot be written.
        """
        known = {
            identity(scan["source"], scan["series"]): name for name, scan in self._scans.items()
        }
        taken = {FAILED, SCANS, PAGE, *(path.name for path in self.out.iterdir())}
        names = assign_names(scans, known, taken, keep_identifiers=keep_identifiers)
        for name, one in names.items():
            state = one.state
            before = self._scans.get(name, {}).get("state", state)
            if state != before and (self.out / name).exists():
                self.changed.add(name)
                state = before
            self._scans[name] = {
                "source": str(one.path), "series": one.series or "", "state": state,
            }  # fmt: skip
        self.write({})
        return names

    def write(self, failed: Mapping[str, str]) -> None:
        """Write the file, with the reason of each scan that failed."""
        write_json(self.path, {"scans": self._scans, "failed": dict(failed)})
