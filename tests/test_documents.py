"""Every code block of README and docs works as it stands, with tiny settings.

Blocks of Python run one after another in one namespace a page; YAML is read as the configuration
that it is; a shell's blocks, which those without a language are too, run command by command. Blocks
called ``text`` are shown only; after Python that prints, they are what it prints. All run in a
folder that holds what pages speak of: scans in ``ct``, ``ct.data`` made of them, ``runs/both``.
``tests/data/sources/test_real_ct.py`` runs the tutorial on real CT.
"""

import contextlib
import io
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
import tyro
import yaml
from markdown_it import MarkdownIt
from PIL import Image

from pyro_stitchnet import cli
from pyro_stitchnet.data.sources import SOURCES
from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.evaluation.benchmark.spec import read_spec
from pyro_stitchnet.model.likelihoods import FAMILIES
from pyro_stitchnet.training.config import from_yaml

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(p for p in (ROOT / "docs").rglob("*.md")),
]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

# Limits of a page: far above the rules of CONTRIBUTING.md, so that only a bad page fails.
MOST_WORDS = 85  # of a paragraph or an item of a list
MOST_NUMBERS = 8  # in it
MOST_COLUMNS = 7  # of a table
MOST_LINES = 120  # of the README
NUMBER = re.compile(r"(?<![\w.-])[-−+]?\.?\d[\d.,]*(?:%| x \d+)?(?!\w)")  # 128 x 128 is one
NAMED = re.compile(  # numbers that are names: eq. 9, Fig. 6b, seed 0, Python 3.11, dates and years
    r"\b(?:eq\.|seeds?|version|[A-Z][\w.]+) \d[\w.]*(?:(?:,| to| and| or) \d[\w.]*)*"
    r"|\b(?:19|20)\d\d(?:-\d\d-\d\d)?\b"
)

# Options put behind those of a page: the last one counts.
TINY = {
    "demo": "--steps 1",
    "evaluate": "--samples 1 --views 1",
    "inspect": "--sheet 2",
    "phantom": "--patients 8 --slices 1 --size 64",
    "prepare": "--size 64 --lungs none --workers 1 --no-progress",
    "predict": "--workers 1 --samples 1 --no-progress",
    "sample": "--number 1",
    "explain": "--samples 1",
    "train": "--steps 2 --weights None --labelled-per-batch 2 --unlabelled-per-batch 2"
    " --accumulate 1 --processes 1 --nodes 1 --workers 0 --precision 32 --no-compile --device cpu"
    " --validate-every 2 --keep-every 1 --log-every 1 --no-progress --no-tensorboard",
}

# What is of the machine, or takes hours, or the network: a page may say it, a test leaves it alone.
LEFT_ALONE = ("cd", "curl", "git", "pip", ".venv/bin/pip", "python3.11", "sbatch", "tensorboard")
LEFT_ALONE_OURS = ("benchmark", "download", "export", "view")  # tested where they belong


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of a page's code blocks, fenced or indented."""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            yield token.info.strip(), token.content


def commands(block: str) -> Iterator[list[str]]:
    """The commands of a block, as words, without comments and environment variables."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words:
            yield words


@pytest.fixture
def registries() -> Iterator[None]:
    """What a page registers is gone when it ends: other tests count what there is."""
    with mock.patch.dict(FAMILIES), mock.patch.dict(METHODS), mock.patch.dict(SOURCES):
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages speak of."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        folders = ((0, "labelled", 5), (5, "unlabelled", 2), (40, "infection", 2))
        for first, name, patients in folders:
            numbers = f"--first {first} --patients {patients} --slices 1 --size 64"
            masks = "--no-masks" if name == "unlabelled" else "--masks"
            run(patch, f"phantom --out ct/{name}", numbers, masks)
        for mask in Path("ct/infection/masks").iterdir():
            Image.open(mask).point(lambda v: min(v, 2)).save(mask)
        sources = "ct/labelled ct/unlabelled ct/infection@infection"
        run(patch, f"prepare {sources} --out ct.data", TINY["prepare"])
        run(patch, "train ct.data --out runs/both", TINY["train"])
        write_scan(Path("scan.nii.gz"))
        shutil.copy(next(Path("ct/labelled/images").iterdir()), "slice.png")
    return folder


def write_scan(path: Path) -> None:
    """A volume of noise in Hounsfield units."""
    voxels = np.random.default_rng(0).integers(-1000, 200, (64, 64, 6)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 5.0, 1.0])), path)


def run(patch: pytest.MonkeyPatch, *arguments: str) -> None:
    patch.setattr(sys, "argv", ["stitchnet", *shlex.split(" ".join(arguments))])
    cli.main()


@pytest.mark.slow
@pytest.mark.usefixtures("registries")
@pytest.mark.filterwarnings("ignore:.*found no sample sites configured for enumeration")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "real_ct.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_code_blocks(
    page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(world, tmp_path / "here")
    shutil.copytree(ROOT / "examples", folder / "examples")
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "page"}
    made: set[Path] = set()
    printed = ""
    for language, text in blocks(page):
        if language == "text" and printed:
            assert text == printed, f"{page}: this is not what the block before prints"
        printed = ""
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, str(page), "exec"), names)
            printed = out.getvalue()
        elif language == "yaml":
            check_yaml(text, folder / "block.yaml")
        elif language in ("", "bash"):
            for words in commands(text):
                check_command(words, monkeypatch, made)
        else:
            assert language == "text", f"{page}: no way to run {language}"


def check_yaml(text: str, path: Path) -> None:
    """A benchmark's specification, or the configuration of a run."""
    path.write_text(text)
    if "entries" in yaml.safe_load(text):
        read_spec(path)
    else:
        from_yaml(path).check()


def check_command(words: list[str], patch: pytest.MonkeyPatch, made: set[Path]) -> None:
    """Run a command of the package; of others, see that there is such a one."""
    launcher = words[0] == "torchrun"
    if launcher or words[:2] == ["python", "-m"]:
        words = words[words.index("pyro_stitchnet") :]
    if words[0] in LEFT_ALONE:
        return
    if words[0] in ("stitchnet", "pyro_stitchnet"):
        if words[1] in LEFT_ALONE_OURS:
            return
        if "--label-budget" in words:
            words[words.index("--label-budget") + 1] = "2"
        if "--out" in words:  # what a page writes replaces what was there, but not its own
            out = Path(words[words.index("--out") + 1])
            if out not in made:
                shutil.rmtree(out, ignore_errors=True)
            made.add(out)
        refused = pytest.raises(SystemExit, match=r"^1$")  # what is finished cannot go on
        with refused if "--resume" in words else contextlib.nullcontext():
            run(patch, shlex.join(words[1:]), TINY.get(words[1], ""))
    elif words[0] == "make":
        for target in (word for word in words[1:] if "=" not in word):
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), f"no target {target}"
    elif words[0] == "python":
        check_script(words[1:], patch)
    else:
        assert (ROOT / words[0]).is_file() or words[0].startswith(".venv/"), f"what is {words[0]}?"


def check_script(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """A script has the options that a page gives it; `tests/test_examples.py` runs it."""
    if (ROOT / words[0]).is_dir():
        patch.syspath_prepend(str(ROOT / words[0]))  # as `python FOLDER` does
        commands = runpy.run_path(str(ROOT / words[0]))["COMMANDS"]
        tyro.extras.subcommand_cli_from_dict(commands, args=words[1:])
        return
    script = (ROOT / words[0]).read_text(encoding="utf-8")
    for word in words[1:]:
        if word.startswith("--"):
            option = word.removeprefix("--").removeprefix("no-").replace("-", "_")
            assert re.search(rf"\b{option}\b", script), f"{words[0]} has no {word}"


def test_readme_in_numbers() -> None:
    """What the README's Python example and YAML say of themselves holds."""
    names: dict[str, object] = {}
    readme = dict(blocks(ROOT / "README.md"))
    exec(readme["python"], names)
    assert names["answer"].labels.shape == (2, 64, 64)  # type: ignore[attr-defined]
    assert names["labelled"] > names["unlabelled"]  # type: ignore[operator]


def paragraphs(page: Path) -> Iterator[tuple[int, str]]:
    """Line and text of a page's paragraphs and items of lists, without code and formulas."""
    text = re.sub(
        r"\$\$.*?\$\$", lambda m: "\n" * m[0].count("\n"), page.read_text("utf-8"), flags=re.S
    )
    tokens = MarkdownIt().enable("table").parse(text)
    for opening, token in pairwise(tokens):
        if opening.type == "paragraph_open" and opening.map and token.children:
            parts = ["code" if c.type == "code_inline" else c.content for c in token.children]
            breaks = [c.type in ("softbreak", "hardbreak") for c in token.children]
            shown = "".join(" " if b else part for part, b in zip(parts, breaks, strict=True))
            yield opening.map[0] + 1, re.sub(r"<[^>]*>", "", shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_readable(page: Path) -> None:
    """Paragraphs are short and have few numbers, and tables fit on a screen."""
    faults = []
    for line, text in paragraphs(page):
        words, numbers = len(text.split()), len(NUMBER.findall(NAMED.sub("", text)))
        if words > MOST_WORDS:
            faults.append(f"line {line}: {words} words; divide the paragraph")
        if numbers > MOST_NUMBERS:
            faults.append(f"line {line}: {numbers} numbers; put them into a table")
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, row in enumerate(lines, 1):
        columns = row.count("|") - 1
        if re.fullmatch(r"\|(?: ?:?-+:? ?\|)+", row) and columns > MOST_COLUMNS:
            faults.append(f"line {number}: a table of {columns} columns; divide it")
    if page.name == "README.md" and len(lines) > MOST_LINES:
        faults.append(f"{len(lines)} lines; move what is not for a first look to docs/")
    assert not faults


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_in_the_repository_too(page: Path) -> None:
    """As a code host shows it; MkDocs checks them on the site."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    pictures = re.findall(r'src="(?!https?:)([^"]+)"', text)
    missing = [link for link in (*links, *pictures) if not (page.parent / link).exists()]
    assert not missing
