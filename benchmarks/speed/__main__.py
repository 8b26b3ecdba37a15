"""What does it cost? Time and memory of one part of the package, compared with a reference.

    python benchmarks/speed COMMAND
    python benchmarks/speed COMMAND --help

Every command prints its origin (command, date, commit, machine, versions, seed) and one Markdown
table. Contenders run in turn, round after round, so that other programs slow all of them alike.
Seconds are medians over rounds, of the wall clock and of CPU (all threads and ended children). A
ratio is the median over rounds of the quotient with the reference, with its quartiles.

To compare two commits, run the same command at both: no reference of `step`, `segment`, `prepare`,
`load` and `start` uses the package, so their ratios stay comparable.
"""

import tyro
from enumeration import Enumeration
from export import Export
from load import Load
from measure import Measurement
from operators import Operators
from parts import Parts
from predict import Predict
from prepare import Prepare
from processes import Processes
from segment import Segment
from start import Start
from step import Step

COMMANDS: dict[str, type[Measurement]] = {
    "step": Step,
    "enumeration": Enumeration,
    "parts": Parts,
    "operators": Operators,
    "segment": Segment,
    "predict": Predict,
    "prepare": Prepare,
    "load": Load,
    "export": Export,
    "processes": Processes,
    "start": Start,
}


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(dict(COMMANDS), description=__doc__).run()
