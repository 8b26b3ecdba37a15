"""All checks that need a GPU, in one dated report: `make gpu`.

    python benchmarks/gpu_report.py --out gpu.md

Runs the tests marked `cuda`, `speed step` and `speed segment` at 32 bits, bfloat16 and float16,
eager and compiled, `speed enumeration`, and one short training, and writes their output. The exit
status is 1 without a GPU, or if a part failed; its output is in the report.
"""

import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.provenance import provenance

HERE = Path(__file__).parent
PRECISIONS = ("32", "bf16-mixed", "16-mixed")


@dataclass
class Config:
    out: Path = Path("gpu.md")
    batch: int = 8
    sizes: tuple[int, ...] = (128, 192, 256, 384)  # multiples of 64
    minutes: float = 20  # limit for each part


def parts(config: Config, scratch: Path) -> dict[str, list[str]]:
    speed = [sys.executable, str(HERE / "speed")]
    options = ["--device", "cuda", "--batch", str(config.batch), "--sizes", *map(str, config.sizes)]
    tables = {
        f"Speed of {command}, {precision}{', compiled' * compiled}": [
            *speed, command, *options, "--precision", precision, *["--compile"] * compiled,
        ]
        for compiled in (False, True)
        for precision in PRECISIONS
        for command in ("step", "segment")
    }  # fmt: skip
    return {
        "Tests": [sys.executable, "-m", "pytest", "-q", "-m", "cuda", str(HERE.parent / "tests")],
        "A short training": [
            sys.executable, "-m", "pyro_stitchnet", "demo", "--out", str(scratch / "demo"),
        ],
        "Speed of Pyro's enumeration": [*speed, "enumeration", *options],
        **tables,
    }  # fmt: skip


def main(config: Config) -> int:
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was run", file=sys.stderr)
        return 1
    about = "\n".join(f"* {key}: {value}" for key, value in provenance().items())
    report, failed = f"# pyro_stitchnet on a GPU\n\n{about}\n", []
    with tempfile.TemporaryDirectory() as scratch:
        for title, command in parts(config, Path(scratch)).items():
            print(title, flush=True)
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=60 * config.minutes
                )
                output, ok = done.stdout + done.stderr * (done.returncode != 0), not done.returncode
            except subprocess.TimeoutExpired:
                output, ok = f"not done in {config.minutes:g} minutes", False
            failed += [] if ok else [title]
            report += (
                f"\n## {title}{'' if ok else ': FAILED'}\n\n    {shlex.join(command)}\n\n{output}\n"
            )
            write_atomically(config.out, report)  # after each part: results so far are kept
    print(f"{config.out}" + f"; failed: {', '.join(failed)}" * bool(failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
