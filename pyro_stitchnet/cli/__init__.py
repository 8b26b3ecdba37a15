"""The command line `stitchnet`: overview of the commands, dispatch and error messages.

Only the module of the command that runs is imported. The overview and the help of a command import
neither torch nor Pyro, except the help of `train`.
"""

import difflib
import errno
import importlib
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

from pyro_stitchnet.runtime import host
from pyro_stitchnet.runtime.threads import FreeCores, use_free_cores

__all__ = ["COMMANDS", "Command", "main", "overview"]


class Command(NamedTuple):
    """A command: a function of the same name in a module of this package.

    Attributes:
        module: name of the module.
        summary: first line of the function's docstring.
        computes: whether it computes with torch in its own process.
    """

    module: str
    summary: str
    computes: bool = False


COMMANDS: Mapping[str, Command] = {
    "demo": Command(
        "demo",
        "Train on phantoms, evaluate on unseen ones and draw the results (some minutes).",
        True,
    ),
    "download": Command("datasets", "Download a public dataset and verify its checksums."),
    "phantom": Command("datasets", "Write a folder of synthetic chest CT slices with labels."),
    "prepare": Command("datasets", "Preprocess scans and write them as a dataset for training."),
    "inspect": Command(
        "datasets", "Summarise a dataset: counts, label shares, grey values, warnings, slices."
    ),
    "train": Command(
        "training", "Train a model on a dataset and evaluate it on unseen patients.", True
    ),
    "evaluate": Command(
        "scores", "Score a trained model on the labelled slices of a dataset.", True
    ),
    "benchmark": Command(
        "scores", "Train and test StitchNet and other methods under the same conditions.", True
    ),
    "sample": Command(
        "questions", "Sample slices, with labels and styles, from a trained model.", True
    ),
    "styles": Command("questions", "Draw the four styles of a slice from their posterior.", True),
    "explain": Command(
        "questions",
        "Write a page on one slice: labels, uncertainty, styles, counterfactuals.",
        True,
    ),
    "predict": Command(
        "scans",
        "Segment CT scans: labels, uncertainty and measurements on each scan's grid. For research.",
    ),
    "view": Command(
        "viewing",
        "Show segmented scans in the browser: a table of all scans, and images of each.",
    ),
    "rank": Command(
        "scans",
        "Choose the most uncertain slices to label next, and copy them for 3D Slicer or ITK-SNAP.",
    ),
    "export": Command(
        "exporting",
        "Write a model as a file that runs without this package; see docs/export.md.",
        True,
    ),
}
"""The commands by name."""

USER_ERRORS = (OSError, ValueError, FloatingPointError, MemoryError)
"""Errors that a user can correct, reported in one line without a traceback."""

REMEDIES = {
    errno.ENOENT: "no such file or folder; check the path",
    errno.EEXIST: "a file exists where a folder is needed; give another path",
    errno.EISDIR: "a folder where a file is needed; give the path of a file",
    errno.ENAMETOOLONG: "the path is too long; give a shorter one",
    errno.ELOOP: "its links lead in a circle; check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; give another path",
    errno.ENOSPC: "no space left on the disk; free some space and run the same command again",
    errno.EDQUOT: "disk quota exceeded; free some space and run the same command again",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "no permission; change the permissions or give another path",
    ),
}
"""Messages for errors of the operating system, by number."""

NO_MEMORY = "not enough memory; give smaller slices, batches or networks"

INTERRUPTED = (
    "interrupted; `download`, `prepare`, `predict` and `benchmark` continue when run again, and "
    "`train` with --resume"
)


def main() -> None:
    """Run the command that ``sys.argv`` names.

    Raises:
        SystemExit: with status 1 for a user's error, 2 for a wrong command or option, 130 after an
            interrupt, 141 if the reader of the output has closed it.
    """
    host.settle()
    try:
        try:
            _command()
        finally:
            host.flush_output()
    except BrokenPipeError:
        host.discard_output()
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:  # of a full disk, for instance, below the standard output
        host.discard_output()
        print(f"error: standard output: {_message(error)}", file=sys.stderr)
        sys.exit(1)


def _command() -> None:
    """Run the command, and report its errors.

    Raises:
        BrokenPipeError: the reader of the output has closed it.
        SystemExit: with a status above 0.
    """
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(overview())
        return
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else "`stitchnet --help` lists the commands"
        print(f"error: unknown command {command!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    try:
        host.check_working_folder()
        if "" in arguments:  # as a path it would mean the working folder
            raise ValueError("an argument is empty (from an unset shell variable?); give a value")
        _run(command, arguments)
    except USER_ERRORS as error:
        if isinstance(error, BrokenPipeError) and host.nobody_reads():
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        sys.exit(1)
    except RuntimeError as error:
        if "allocate" not in str(error) and "out of memory" not in str(error):
            raise
        print(f"error: {NO_MEMORY}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second press would change the exit status
        print(str(interrupt) or INTERRUPTED, file=sys.stderr)
        sys.exit(130)


def overview() -> str:
    """Return the usage and the list of commands, at most 100 columns wide."""
    width = min(shutil.get_terminal_size().columns, 100)
    entries = [("-h, --help", "show this message and exit")]
    entries += [(name, command.summary) for name, command in COMMANDS.items()]
    column = 4 + max(len(name) for name, _ in entries)
    options, *commands = (
        textwrap.fill(
            summary,
            width,
            initial_indent=f"  {name}".ljust(column),
            subsequent_indent=" " * column,
            break_on_hyphens=False,
        )
        for name, summary in entries
    )
    parts = [
        "usage: stitchnet [-h] COMMAND ...",
        "Semi-supervised segmentation of lung CT with a deep generative model.",
        "\n".join(["commands:", *commands]),
        "\n".join(["options:", options]),
        "`stitchnet COMMAND --help` lists the options of a command.",
    ]
    return "\n\n".join(parts)


def _run(command: str, arguments: Sequence[str]) -> None:
    cores = FreeCores()  # measures while modules are imported
    import tyro

    from pyro_stitchnet.runtime.ranges import checked

    module = importlib.import_module(f"{__name__}.{COMMANDS[command].module}")
    function = checked(getattr(module, command))
    if COMMANDS[command].computes:
        function = _with_free_cores(function, cores)
    if command == "train":  # a preset and a YAML file set the defaults of the other options
        function = partial(function, config=module.defaults(arguments))
    tyro.cli(function, prog=f"stitchnet {command}", args=arguments)


def _with_free_cores(function: Callable[..., None], cores: FreeCores) -> Callable[..., None]:
    """Return a command that first chooses the number of torch's threads."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> None:
        use_free_cores(cores)
        function(*args, **kwargs)

    return call


def _message(error: BaseException) -> str:
    """Describe an error and its remedy in one line; an OSError's message begins with the file."""
    if isinstance(error, MemoryError):
        return NO_MEMORY
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename and error.errno in REMEDIES:
        text = f"{os.fsdecode(error.filename)}: {REMEDIES[error.errno]}"
    lines = " ".join(line.strip() for line in text.splitlines())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in lines)
