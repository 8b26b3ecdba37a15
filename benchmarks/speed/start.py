"""The cost of starting the command line."""

import subprocess
import sys
from dataclasses import dataclass

from measure import Measurement, Table, Work

TORCH = "import torch"


@dataclass
class Start(Measurement):
    """The help of `stitchnet` and of its commands, compared with importing torch."""

    commands: tuple[str, ...] = ("predict", "train")

    def run(self) -> None:
        self.print_origin()
        works = {TORCH: python("-c", TORCH), "python alone": python("-c", "pass")}
        for command in ((), *((name,) for name in self.commands)):
            words = (*command, "--help")
            works[f"`stitchnet {' '.join(words)}`"] = python("-m", "pyro_stitchnet", *words)
        Table(TORCH).add("one process", self.time(works))


def python(*words: str) -> Work:
    def work() -> None:
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    return work
