"""All checks that need a GPU, in one dated report: `make gpu`.

    python benchmarks/gpu_report.py --out gpu.md

Runs the tests marked `cuda`, the step-speed tables at 32 bits, bfloat16 and float16, eager and
compiled, and one short training, and writes their output. The exit status is 1 without a GPU, or if
a part failed; its output is in the report.
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
SIZES = {  # by presets
    ("article", "tiny"): (128, 192, 256, 352),
    ("guided",): (128, 192, 256, 384),
}


@dataclass
class Config:
    out: Path = Path("gpu.md")
    batch: int = 8
    minutes: float = 20  # limit for each part


def parts(config: Config, scratch: Path) -> dict[str, list[str]]:
    speed = [
        sys.executable, str(HERE / "step_speed.py"), "--device", "cuda",
        "--batch", str(config.batch),
    ]  # fmt: skip
    tables = {
        f"Step speed, {', '.join(presets)}, {precision}{', compiled' * compiled}": [
            *speed, "--presets", *presets, "--sizes", *map(str, sizes), "--precision", precision,
            *["--compile"] * compiled,
        ]
        for compiled in (False, True)
        for precision in ("32", "bf16-mixed", "16-mixed")
        for presets, sizes in SIZES.items()
    }  # fmt: skip
    return {
        "Tests": [sys.executable, "-m", "pytest", "-q", "-m", "cuda", str(HERE.parent / "tests")],
        "A short training": [
            sys.executable, "-m", "pyro_stitchnet", "demo", "--out", str(scratch / "demo"),
        ],
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
