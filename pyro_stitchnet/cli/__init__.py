"""The command line, `stitchnet`: parses, calls, prints.

torch, Pyro and dask take seconds to import: each command imports what it needs, once its options
are understood.
"""

import errno
import os
import sys
from collections.abc import Sequence
from functools import partial

import tyro

from pyro_stitchnet.cli import datasets, exporting, models, questions, scans, viewing
from pyro_stitchnet.training.config import TrainConfig, from_yaml

__all__ = ["main"]

# What a user can mend: said in one line, without a traceback.
USER_ERRORS = (OSError, ValueError, FloatingPointError)

# The same of what the system says by a number.
REMEDIES = {
    errno.ENOENT: "no such file or folder; check the path",
    errno.EEXIST: "a file, but a folder is to be here; give another path",
    errno.ENOTDIR: "leads through a file as if it were a folder; give another path",
    errno.ENOSPC: "no space is left on its disk; make room, and run the same command again",
    errno.EDQUOT: "your share of its disk is used up; make room, and run the same command again",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "no permission; ask for the right to it, or give another path",
    ),
}


def main() -> None:
    """Entry point of the `stitchnet` command."""
    try:
        defaults = _defaults(sys.argv[1:])
        tyro.extras.subcommand_cli_from_dict(
            {
                "demo": models.demo,
                "prepare": datasets.prepare,
                "inspect": datasets.inspect,
                "train": partial(models.train, config=defaults),
                "evaluate": models.evaluate,
                "export": exporting.export,
                "sample": questions.sample,
                "styles": questions.styles,
                "explain": questions.explain,
                "predict": scans.predict,
                "rank": scans.rank,
                "benchmark": models.benchmark,
                "download": datasets.download,
                "phantom": datasets.phantom,
                "view": viewing.view,
            },
            prog="stitchnet",
            description="Semi-supervised segmentation of lung CT with a deep generative model.",
        )
    except USER_ERRORS as error:
        print(f"error: {_said(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped; `prepare` goes on when run again", file=sys.stderr)
        sys.exit(130)


def _defaults(arguments: Sequence[str]) -> TrainConfig:
    """What `train` does where nothing else is said: that of the preset and the file it names.

    They are read before the other options, whose defaults they set, and once more with them, so
    that `--help` lists all.
    """
    if not arguments or arguments[0] != "train":
        return from_yaml()
    start, _ = tyro.cli(models.Start, args=arguments[1:], return_unknown_args=True, add_help=False)
    return from_yaml(start.config, start.preset)


def _said(error: Exception) -> str:
    """What went wrong, where, and the remedy."""
    if isinstance(error, OSError) and error.filename and error.errno in REMEDIES:
        return f"{os.fspath(error.filename)}: {REMEDIES[error.errno]}"
    return str(error)
