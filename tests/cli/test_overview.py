"""The overview of the commands, its imports, and the messages of errors."""

import errno
import importlib
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from pyro_stitchnet import cli
from pyro_stitchnet.cli import COMMANDS, overview

HEAVY = {
    "SimpleITK", "dask", "matplotlib", "nibabel", "numpy", "pandas", "pydantic", "pydicom", "pyro",
    "rich", "scipy", "torch", "tyro", "zarr",
}  # fmt: skip


def modules_after(*arguments: str) -> set[str]:
    """The packages that a new process has imported when the command ends."""
    code = (
        "import sys; from pyro_stitchnet import cli; sys.argv = ['stitchnet', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [], ["evaluates"]])
def test_the_overview_imports_nothing_heavy(arguments: list[str]) -> None:
    modules = modules_after(*arguments)
    assert "pyro_stitchnet" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize(
    "command", ["demo", "prepare", "evaluate", "sample", "predict", "view", "export"]
)
def test_a_commands_help_imports_no_torch(command: str) -> None:
    """One command of each module but `train`, whose options are the label terms themselves."""
    assert not modules_after(command, "--help") & {"torch", "pyro"}


@pytest.mark.parametrize("name", COMMANDS)
def test_summaries_are_the_first_lines_of_the_docstrings(name: str) -> None:
    command = COMMANDS[name]
    function = getattr(importlib.import_module(f"pyro_stitchnet.cli.{command.module}"), name)
    assert function.__doc__.splitlines()[0] == command.summary


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_overview_lists_every_command_within_the_width(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = overview()
    commands = text.partition("commands:\n")[2].partition("\n\n")[0]
    assert max(map(len, commands.splitlines())) <= min(width, 100)
    for name, command in COMMANDS.items():
        assert f"\n  {name} " in f"\n{commands}"
        assert command.summary in " ".join(commands.split())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_overview_is_printed_to_stdout(
    stitchnet: Callable[..., None], capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    stitchnet(*arguments)
    assert capsys.readouterr().out == f"{overview()}\n"


@pytest.mark.parametrize(
    ("command", "hint"),
    [("evaluates", "did you mean 'evaluate'?"), ("xyz", "`stitchnet --help` lists the commands")],
)
def test_an_unknown_command_has_a_hint_and_status_2(
    stitchnet: Callable[..., None], capsys: pytest.CaptureFixture[str], command: str, hint: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        stitchnet(command)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: unknown command '{command}'; {hint}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(
    stitchnet: Callable[..., None], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        stitchnet(command, "--help")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: stitchnet {command} ")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("a: wrong; right it"), 1, "error: a: wrong; right it"),
        (FloatingPointError("20 steps"), 1, "error: 20 steps"),
        (ValueError("a\n  b\x1b[1m\udcff"), 1, "error: a b\\x1b[1m\\udcff"),
        (ValueError(), 1, "error: ValueError"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "error: [Errno 32] Broken pipe"),
        (MemoryError(), 1, f"error: {cli.NO_MEMORY}"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            1,
            f"error: {cli.NO_MEMORY}",
        ),
        (
            IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), "a/b"),
            1,
            "error: a/b: a folder where a file is needed; give the path of a file",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a/b"),
            1,
            "error: a/b: no permission; change the permissions or give another path",
        ),
        (KeyboardInterrupt("stopped after step 3"), 130, "stopped after step 3"),
        (KeyboardInterrupt(), 130, cli.INTERRUPTED),
    ],
)
def test_errors_are_one_line(
    stitchnet: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    message: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(SystemExit) as stop:
        stitchnet("demo")
    assert stop.value.code == status
    assert capsys.readouterr().err == f"{message}\n"


def test_errors_of_the_program_keep_their_traceback(
    stitchnet: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(KeyError, match="a bug"):
        stitchnet("demo")
