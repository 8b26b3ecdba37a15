"""The site's generated pages: modules, command line, configuration, presets, notebooks.

MkDocs calls the functions `on_...` of this file; mkdocstrings uses `Roles` (see mkdocs.yml).
"""

import contextlib
import dataclasses
import importlib
import importlib.resources
import io
import os
import pkgutil
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
import nbconvert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import pyro_stitchnet
from pyro_stitchnet import cli
from pyro_stitchnet.data.datasets.shards import MANIFEST
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.data.sources import SOURCES
from pyro_stitchnet.model.config import ModelConfig
from pyro_stitchnet.model.label_terms import Enumerated, Expected, Guided, Marginal, Relaxed
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.presets import PRESETS, OptimiserConfig
from pyro_stitchnet.training.config import TrainConfig, plain

ROOT = Path(__file__).parent.parent
PACKAGE = "pyro_stitchnet"

CLASSES = {
    TrainConfig: "The keys of a YAML file; `label_budget` is the option `--label-budget`.",
    ModelConfig: "Below `model:` in YAML. In a file, the default of a key is the preset's.",
    Objective: "Below `objective:` in YAML.",
    Enumerated: "Below `objective: labels:` in YAML: one of the label terms.",
    Marginal: "A label term.",
    Relaxed: "A label term.",
    Expected: "A label term.",
    Guided: "A label term.",
    OptimiserConfig: "Below `optimiser:` in YAML.",
    Preprocessing: "The options of `stitchnet prepare`; a dataset records them in `dataset.json`.",
}

REPORTS = "benchmarks/results/*/report.md"

MADE_OF = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    f"{PACKAGE}/__init__.pyi": f"reference/python/{PACKAGE}.md",
    f"{PACKAGE}/cli": "reference/command_line.md",
    f"{PACKAGE}/training/config.py": "reference/configuration.md",
    **{
        path.relative_to(ROOT).as_posix(): f"results/{path.parent.name}.md"
        for path in sorted(ROOT.glob(REPORTS))
    },
}
"""Generated pages by their source. On the site, links to a source lead to its page.

Links to any other module lead to the page of its name.
"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the reports of benchmarks and the modules' pages to the navigation."""
    reports = [{f"Report: {Path(uri).stem}": uri} for uri in results()]
    pages = [{name.removeprefix(f"{PACKAGE}."): _page(name)} for name in modules()]
    for section in config.nav or []:
        if "Reference" in section:
            section["Reference"] += [*reports, {"Python": pages}]
    return config


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fill in the tables, marked by comments, and link to generated pages."""
    filled = markdown.replace("<!-- sources -->", sources())
    filled = filled.replace("<!-- manifest -->", manifest())
    folder = posixpath.dirname(page.file.src_uri)

    def made(link: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join("docs", folder, link[1]))
        target = MADE_OF.get(file)
        if target is None and file.startswith(f"{PACKAGE}/"):
            target = _page(file.removesuffix(".py").replace("/", "."))
        return f"]({posixpath.relpath(target, folder or '.')})" if target else link[0]

    filled = re.sub(r"\]\(([\w/.-]+)\)", made, filled)
    return re.sub(r"\(([\w/.-]+)\.ipynb\)", r"(\1.md)", filled)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages; notebooks become pages with image files beside them."""
    made: dict[str, str | bytes] = {
        "contributing.md": contributing(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "reference/command_line.md": command_line(),
        "reference/configuration.md": configuration(),
        "reference/presets.md": presets(),
        "javascripts/tex-svg.js": mathjax(),
        **results(),
        **{_page(name): f"::: {name}\n" for name in modules()},
    }
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
            made |= notebook(Path(config.docs_dir, file.src_uri), file.src_uri)
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def modules() -> list[str]:
    """The package and its modules that export something."""
    found = pkgutil.walk_packages(pyro_stitchnet.__path__, f"{PACKAGE}.")
    public = [m.name for m in found if not any(part[0] == "_" for part in m.name.split("."))]
    exporting = [m for m in public if getattr(importlib.import_module(m), "__all__", None)]
    return [PACKAGE, *exporting]


def contributing() -> str:
    """CONTRIBUTING.md, with links relative to the site."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](")


def results() -> dict[str, str]:
    """The reports of benchmarks, by their page."""
    return {
        MADE_OF[path.relative_to(ROOT).as_posix()]: f"# Report: {path.parent.name}\n\n"
        + path.read_text(encoding="utf-8")
        for path in sorted(ROOT.glob(REPORTS))
    }


def command_line() -> str:
    """The `--help` of every command, as tables."""
    contents, parts = ["| command | what it does |\n|---|---|"], []
    for name, command in cli.COMMANDS.items():
        head, *groups = re.split(r"\n\n (?=\S.*\n -{9})", printed_by(name, "--help"))
        usage, description = head.split("\n\n", 1)
        contents.append(f"| [`{name}`](#stitchnet-{name}) | {_cell(command.summary)} |")
        parts += [f"## stitchnet {name}", _text(usage), description, *map(_options, groups)]
    about = "`stitchnet COMMAND --help` prints the same; `python -m pyro_stitchnet` is `stitchnet`."
    return "\n\n".join(["# Command line", about, "\n".join(contents), *parts])


def printed_by(*arguments: str) -> str:
    """The output of the command, 120 columns wide: narrower, tyro sets options in two columns."""
    before, sys.argv = sys.argv, ["stitchnet", *arguments]
    os.environ |= {"COLUMNS": "120", "NO_COLOR": "1"}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            cli.main()
    finally:
        sys.argv = before
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines())


def configuration() -> str:
    """A table per configuration class: its fields, their defaults and meanings."""
    parts = ["# Configuration"]
    for cls, about in CLASSES.items():
        parts += [f"## {cls.__name__}", about, "| field | default | meaning |\n|---|---|---|"]
        meanings = _attributes(cls)
        parts[-1] += "".join(
            f"\n| `{field.name}` | {_default(field)} | {meanings[field.name]} |"
            for field in dataclasses.fields(cls)
        )
    return "\n\n".join(parts)


def presets() -> str:
    """The fields in which presets differ, in a table for each kind of model."""
    flat = {name: dict(_flat(plain(p))) for name, p in PRESETS.items()}
    every = dict.fromkeys(key for values in flat.values() for key in values)
    keys = [k for k in every if len({str(values.get(k)) for values in flat.values()}) > 1]
    parts = [
        "# Presets\n\nThe fields in which the presets of `pyro_stitchnet.presets` differ; all "
        "others have the [defaults](configuration.md). See also [the models](../model.md)."
    ]
    for title, stitched in (("StitchNet", True), ("The SVAE alone", False)):
        of_kind = {n: v for n, v in flat.items() if PRESETS[n].model.stitched == stitched}
        rows = [["field", *of_kind], ["---"] * (1 + len(of_kind))]
        rows += [
            [f"`{key}`", *(f"`{v[key]}`" if key in v else "" for v in of_kind.values())]
            for key in keys
            if any(key in v for v in of_kind.values())
        ]
        parts.append(f"## {title}\n\n" + "\n".join("| " + " | ".join(r) + " |" for r in rows))
    return "\n\n".join(parts) + "\n"


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def sources() -> str:
    """A table of the layouts that `prepare` reads."""
    rows = ["| name | what | layout |\n|---|---|---|"]
    rows += [f"| `{s.name}` | {_cell(s.title)} | {_cell(s.layout)} |" for s in SOURCES.values()]
    return "\n".join(rows)


def manifest() -> str:
    """A table of the columns of `manifest.csv`."""
    rows = [f"| `{name}` | {_cell(meaning)} |" for name, meaning in MANIFEST.items()]
    return "\n".join(["| column | meaning |\n|---|---|", *rows])


def mathjax() -> bytes:
    """The script that draws the equations, from the site itself."""
    return (importlib.resources.files("mathjax") / "static/mathjax/es5/tex-svg.js").read_bytes()


def notebook(path: Path, uri: str) -> dict[str, str | bytes]:
    """A notebook as a page, with the outputs that it holds."""
    folder = f"{Path(uri).stem}_files"
    exporter = nbconvert.MarkdownExporter()
    exporter.exclude_input_prompt = True
    text, resources = exporter.from_filename(path, {"output_files_dir": folder})
    images = {f"{Path(uri).parent}/{name}": data for name, data in resources["outputs"].items()}
    # without pandas' own style, the theme's applies, which scrolls on small screens
    text = re.sub(r"<style scoped>.*?</style>\n", "", text, flags=re.DOTALL)
    text = text.replace('<table border="1" class="dataframe">', "<table>")
    return {uri.replace(".ipynb", ".md"): text, **images}


class Roles(griffe.Extension):
    """Turn roles in docstrings, :class:`x.Y`, into links of mkdocstrings, and `::` into a colon."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            text = re.sub(r":[a-z]+:`~?([\w.]+)`", self._link(obj), obj.docstring.value)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)

    @staticmethod
    def _link(obj: griffe.Object) -> Any:
        def link(role: re.Match[str]) -> str:
            name = role[1]
            owner = obj if obj.is_class else obj.parent
            if "." not in name:  # a name alone is of the same class, or else of the same module
                of_class = owner is not None and name in owner.members
                name = f"{owner.path if of_class else obj.module.path}.{name}"
            short = f"`{name.rpartition('.')[2]}`"
            public = name.startswith(PACKAGE) and "._" not in name
            return f"[{short}][{name}]" if public else short

        return link


def _page(module: str) -> str:
    return f"reference/python/{module}.md"


def _text(printed: str) -> str:
    return f"```text\n{printed.strip()}\n```"


def _options(printed: str) -> str:
    """A group of options, as a command's `--help` prints it, as a table."""
    title, _, printed = printed.split("\n", 2)
    about, between, options = printed.rpartition("  -----")
    named = re.findall(
        r"^ {2}(\S.*?)(?: {2,}|\n {4,})(.*?)(?=\n {2}\S|\Z)",
        options.lstrip("-\n") if between else printed,
        flags=re.MULTILINE | re.DOTALL,
    )
    # None is lost, should another tyro print otherwise.
    assert len(named) == len(re.findall(r"^ {2}(?!-----)\S", printed, re.MULTILINE)) - bool(between)
    about = about.partition("\n")[0].strip()
    rows = [f"| {title} | {_cell(about)} |\n|---|---|"]
    rows += [f"| `{names.replace(', ', '`, `')}` | {_cell(meaning)} |" for names, meaning in named]
    return "\n".join(rows)


def _cell(text: str) -> str:
    """Text for a table's cell."""
    named = re.sub(r":[a-z]+:`~?([\w.]+)`", r"`\1`", " ".join(text.split()))
    return named.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _attributes(cls: type) -> dict[str, str]:
    """The docstring's words on each field."""
    docstring = griffe.Docstring(cls.__doc__ or "", parser="google")
    return {
        entry.name: _cell(entry.description)
        for section in docstring.parse(warnings=False)
        if section.kind is griffe.DocstringSectionKind.attributes
        for entry in section.value
    }


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    if field.default is dataclasses.MISSING or dataclasses.is_dataclass(field.default):
        return "see below"
    return f"`{field.default}`"
