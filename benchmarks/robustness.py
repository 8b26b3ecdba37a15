"""How does the package handle damaged inputs, bad options, malformed requests and killed runs?

    python benchmarks/robustness.py --out runs/robustness

Mutates small inputs of every kind, gives every numeric option of every command impossible values,
sends malformed requests to the viewer, and kills runs at random moments. Prints a Markdown table:
how many were tried, refused by name, accepted unchanged, and how many were faults: a traceback, a
hang of a minute, more than 4 GiB of memory, or a silent change. Where a format has no checksum, a
flipped bit of a voxel cannot be seen; the table counts those separately. Exits with status 1 if
there is a fault; ``faults.csv`` says how to reproduce each. An interrupted run continues after the
last finished part.
"""

import io
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import tyro
from mutations import TARGETS, Outcome, Trial, digest, make_corpus, run
from rich.progress import track
from settings import keep_settings

from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.runtime.workers import work

LIMIT = 60  # seconds, after which an input hangs
SHOWN = 10  # faults that are printed


@dataclass
class Config:
    """Size of the experiment."""

    out: Path
    mutations: int = 10_000
    kills: int = 100
    requests: int = 1_000
    options: bool = True
    seed: int = 0
    workers: int = 2
    only: tuple[str, ...] = ()  # targets, by default all


def main(config: Config) -> None:
    keep_settings(config, free=["workers"])
    corpus = config.out.absolute() / "corpus"
    if not corpus.exists():
        make_corpus(corpus)
    parts = []
    for stage in (mutated, numbers, requests, kills):
        done = config.out / f"{stage.__name__}.csv"
        if not done.exists():
            outcomes = pd.DataFrame(stage(config, corpus), columns=["target", "verdict", "detail"])
            write_atomically(done, outcomes.to_csv(index=False))
        parts.append(pd.read_csv(done))
    table = pd.concat(parts)
    faults = table[table["verdict"] == "fault"]
    faults.to_csv(config.out / "faults.csv", index=False)
    text = summary(table)
    about = provenance()
    text += f"\n{about['date'][:10]}, {about['machine']}, commit {about['commit']}: "
    text += f"`{about['command']}`\n"
    (config.out / "robustness.md").write_text(text, encoding="utf-8")
    print(text)
    for target, _, detail in faults.head(SHOWN).itertuples(index=False):
        print(f"{target}: {detail}", file=sys.stderr)
    sys.exit(bool(len(faults)))


def summary(table: pd.DataFrame) -> str:
    """Return the counts as Markdown."""
    columns = ("refused", "unchanged", "changed", "fault")
    counts = pd.crosstab(table["target"], table["verdict"]).reindex(columns=columns, fill_value=0)
    counts = counts.loc[list(dict.fromkeys(table["target"]))]
    counts.loc["all"] = counts.sum()
    head = "| input | tried | refused | accepted, unchanged | changed, no checksum | faults |"
    lines = [head, "|---|" + "---:|" * 5]
    lines += [f"| {name} | {sum(row)} | {' | '.join(map(str, row))} |" for name, *row in
              counts.itertuples()]  # fmt: skip
    return "\n".join(lines) + "\n"


def in_workers(trials: Sequence, config: Config, what: str) -> Iterable[Outcome]:
    """Try in worker processes, in which a crash or a hang is a fault."""

    def lost(trial: object, reason: str) -> Outcome:
        return Outcome(trial.target, "fault", f"{trial}: {reason}")  # type: ignore[attr-defined]

    done = work(trials, config.workers, limit=LIMIT, lost=lost)
    return track(done, what, total=len(trials))


def mutated(config: Config, corpus: Path) -> Iterable[Outcome]:
    """Mutate inputs."""
    targets = [TARGETS[name] for name in config.only or TARGETS]
    expected = {one.name: digest(one, corpus / one.name) for one in targets}
    trials = [
        Trial(corpus, targets[i % len(targets)].name, expected[targets[i % len(targets)].name],
              config.seed + i)
        for i in range(config.mutations)
    ]  # fmt: skip
    return in_workers(trials, config, "mutated inputs")


VALUES = ("nan", "inf", "-inf", "-1", "0", "0.5", "1e308")
SIZES = ("3200000", "33", "4294967296")  # for --size


@dataclass(frozen=True)
class Number:
    """A command with one bad number.

    Attributes:
        arguments: of `stitchnet`; "OUT" stands for a new folder.
        option: with the number.
    """

    arguments: tuple[str, ...]
    option: tuple[str, str]

    @property
    def target(self) -> str:
        """The row of the table."""
        return "numbers as options"

    def __call__(self) -> Outcome:
        """Run the command in this process, and judge."""
        from pyro_stitchnet.cli import main as command_line

        # Some commands start processes, which those of a pool may not by default.
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
        text = io.StringIO()
        with tempfile.TemporaryDirectory(prefix="robust") as work:
            arguments = [str(Path(work) / "out") if a == "OUT" else a for a in self.arguments]
            argv = ["stitchnet", *arguments, *self.option]
            status: object = 0
            with patch("sys.argv", argv), redirect_stdout(text), redirect_stderr(text):
                try:
                    command_line()
                except SystemExit as end:
                    status = end.code or 0
                except Exception as error:
                    return Outcome(self.target, "fault", f"{argv}: {type(error).__name__}: {error}")
        if status not in (0, 1, 2):
            return Outcome(self.target, "fault", f"{argv}: status {status}")
        if status:
            return Outcome(self.target, "refused")
        if self.option[1] == "nan":
            return Outcome(self.target, "fault", f"{argv}: accepted")
        return Outcome(self.target, "unchanged")


def numbers(config: Config, corpus: Path) -> Iterable[Outcome]:
    """Give every numeric option of every command impossible values."""
    if not config.options:
        return []
    data, model = str(corpus / "dataset" / "set"), str(corpus / "checkpoint" / "model.pt")
    scan, results = str(corpus / "NIfTI, gzip" / "ct.nii.gz"), str(corpus / "results" / "results")
    commands = {
        "phantom": ("--out", "OUT", "--patients", "1", "--slices", "1", "--size", "32"),
        "prepare": (str(corpus / "JPEG"), "--out", "OUT", "--lungs", "none", "--workers", "1"),
        "inspect": (data,),
        "train": (data, "--out", "OUT", "--preset", "tiny", "--steps", "1", "--folds", "0"),
        "evaluate": (model, data, "--out", "OUT"),
        "sample": (model, "--out", "OUT"),
        "styles": (model, data, "--out", "OUT"),
        "explain": (model, data, "--out", "OUT"),
        "predict": (scan, "--model", model, "--out", "OUT", "--lungs", "classical"),
        "rank": (results, "--out", "OUT"),
        "export": (model, "--out", "OUT"),
    }
    trials = [
        Number((command, *arguments), (option, value))
        for command, arguments in commands.items()
        for option in numeric_options(command)
        for value in (SIZES if option == "--size" else VALUES)
    ]
    return in_workers(trials, config, "numbers as options")


def numeric_options(command: str) -> list[str]:
    """Read the names of a command's numeric options from its help."""
    text = run(command, "--help").stdout
    name = r"^\W*(--[a-z][a-z.-]+)(?:, --\S+)? +(?:\{None\}\|)?\[?(?:INT|FLOAT)\b"
    return sorted(set(re.findall(name, text, re.MULTILINE)))


def requests(config: Config, corpus: Path) -> Iterable[Outcome]:
    """Send mutated requests to the viewer."""
    from pyro_stitchnet.viewer.server import Server

    results = corpus / "results" / "results"
    (scan,) = (path.name for path in results.iterdir() if path.is_dir())
    errors = io.StringIO()
    with Server(results, "") as server, redirect_stderr(errors):
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        token = server.address.rpartition("token=")[2]
        for i in track(range(config.requests), "requests"):
            draw = random.Random(f"request {config.seed + i}")
            known = draw.random() < 0.5
            path = draw.choice(("/", f"/scan/{scan}/", f"/scan/{scan}/labels.nii", "/static/a"))
            secret = f"?token={token}" if known else ""
            good = f"GET {path}{secret} HTTP/1.1\r\nHost: {server.server_address[0]}\r\n\r\n"
            yield judge_request(server.server_address, good.encode(), draw, errors, secret)
        server.shutdown()


def judge_request(
    address: tuple, good: bytes, draw: random.Random, errors: io.StringIO, secret: str
) -> Outcome:
    """Send a mutated request, and judge the answer."""
    bad = bytearray(good)
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(bad))
        bad[at : at + draw.randrange(3)] = draw.choice(
            (b"%", b"%00", b"..", b"\xff", b"/", b"\0", b" ", b"%c3%28", b"A" * 70_000, b"\r\n")
        )
    before, name = len(errors.getvalue()), "requests to the viewer"
    with socket.create_connection(address, timeout=LIMIT) as connection:
        try:
            connection.sendall(bytes(bad))
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(2**16)
        except TimeoutError:
            return Outcome(name, "fault", f"{bytes(bad)[:200]!r}: no answer")
        except OSError:  # the server may refuse a request before all of it is sent
            answer = b""
    status = answer.split(b" ")[1:2]
    if len(errors.getvalue()) > before or status == [b"500"]:
        return Outcome(name, "fault", f"{bytes(bad)[:200]!r}: {answer[:200]!r}")
    if status == [b"200"]:
        if not secret:
            return Outcome(name, "fault", f"{bytes(bad)[:200]!r}: answered without a token")
        return Outcome(name, "unchanged")
    return Outcome(name, "refused")


def kills(config: Config, corpus: Path) -> Iterable[Outcome]:
    """Kill runs at random moments, let them end, and compare with undisturbed ones."""
    volumes = config.out.absolute() / "volumes"
    if not volumes.exists():
        for k in range(12):
            (volumes / f"patient{k:02}").mkdir(parents=True)
            shutil.copy(corpus / "NIfTI, gzip" / "ct.nii.gz", volumes / f"patient{k:02}")
    model = corpus / "checkpoint" / "model.pt"
    prepare = ("prepare", volumes, "--size", 64, "--lungs", "classical")
    train = ("train", corpus / "dataset" / "set", "--preset", "tiny", "--steps", 60, "--folds", 0,
             "--labelled-per-batch", 2, "--keep-every", 5, "--no-tensorboard")  # fmt: skip
    predict = ("predict", volumes, "--model", model, "--lungs", "classical", "--workers")
    runs = {
        "kills of prepare": (*prepare, "--workers", 1),
        "kills of prepare, two workers": (*prepare, "--workers", 2),
        "kills of train": train,
        "kills of predict": (*predict, 1),
        "kills of predict, two workers": (*predict, 2),
    }
    for number, (name, arguments) in enumerate(runs.items()):
        count = config.kills // len(runs) + (number < config.kills % len(runs))
        if count:
            yield from killed(name, arguments, count, config)


def killed(name: str, arguments: Sequence, count: int, config: Config) -> Iterable[Outcome]:
    """Kill one command ``count`` times, at most five times before it may end."""
    draw = random.Random(f"{name} {config.seed}")
    with tempfile.TemporaryDirectory(prefix="robust") as folder:
        work = Path(folder)
        begun = time.monotonic()
        for twin in ("a", "b"):
            run(*arguments, "--out", work / twin)
        usual = (time.monotonic() - begun) / 2
        a, b = contents(work / "a"), contents(work / "b")
        fixed = {file for file in a if a[file] == b.get(file)}  # others hold a time
        left, chain = count, 0
        while left:
            out, chain, part = work / f"killed{chain}", chain + 1, min(left, 5)
            for _ in track(range(part), name):
                kill(resumed(arguments, out), usual, draw)
            left -= part
            try:
                run(*resumed(arguments, out))
            except RuntimeError as error:
                # It may have ended before the last kill.
                if not re.search("holds a (dataset already|finished run)", str(error)):
                    yield from [Outcome(name, "fault", str(error))] * part
                    continue
            after = contents(out)
            differ = sorted(file for file in {*fixed, *(after.keys() - a.keys())}
                            if after.get(file) != a.get(file))  # fmt: skip
            verdict = ("fault", f"chain {chain}: {differ} differ") if differ else ("unchanged", "")
            yield from [Outcome(name, *verdict)] * part


def resumed(arguments: Sequence, out: Path) -> tuple:
    """Return the command that continues a killed run."""
    again = ("--resume",) if arguments[0] == "train" and any(out.glob("states/*")) else ()
    return (*arguments, "--out", out, *again)


def kill(command: Sequence, usual: float, draw: random.Random) -> None:
    """Start a command and kill it, alone or with its workers."""
    with subprocess.Popen(
        [sys.executable, "-m", "pyro_stitchnet", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            process.wait(draw.uniform(0, usual))
        except subprocess.TimeoutExpired:
            if draw.random() < 0.5:
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()


def contents(folder: Path) -> dict[str, object]:
    """Return the content of every file of a folder, and of a model its weights."""
    from pyro_stitchnet.training import checkpoint

    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not path.name.startswith("."):
            if path.name == "model.pt":
                weights = checkpoint.load_any(path)[0].state_dict()
                found[name] = [value.numpy().tobytes() for value in weights.values()]
            else:
                found[name] = path.read_bytes()
    return found


if __name__ == "__main__":
    main(tyro.cli(Config))
