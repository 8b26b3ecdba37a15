"""The command that writes a model for other programs: `export`."""

from pathlib import Path
from typing import Literal

import tyro

from pyro_stitchnet.posterior.options import ReadOut
from pyro_stitchnet.runtime.ranges import Side

__all__ = ["export"]


def export(
    model: tyro.conf.Positional[Path],
    out: Path,
    format: Literal["torch", "onnx", "bundle"] = "torch",
    read_out: ReadOut = "posterior",
    size: Side | None = None,
) -> None:
    """Write a model as a file that runs without this package; see docs/export.md.

    Args:
        model: a checkpoint, the model.pt of a run.
        out: a new .pt2 file, .onnx file or, for a bundle, folder.
        format: "torch" for torch.export, "onnx" for ONNX, "bundle" for a MONAI bundle.
        read_out: "guide" is the classifier's q(y | x), "prior" is p(y | z), "posterior" is
            p(y | x, z), with z at its mean.
        size: rows and columns of the input; by default any multiples of 32 or 64, which takes
            longer to export.
    """
    from pyro_stitchnet.export.write import write

    exported = write(model, out, format=format, read_out=read_out, size=size)
    print(
        f"{format}: {out}\nread-out: {exported.description['read_out_meaning']}\n"
        f"largest difference from the checkpoint's probabilities: {exported.difference:.1e}"
    )
