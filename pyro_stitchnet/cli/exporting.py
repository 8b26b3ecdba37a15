"""The command that hands a model to others: `export`."""

from pathlib import Path
from typing import Literal

import tyro

__all__ = ["export"]


def export(
    model: tyro.conf.Positional[Path],
    out: Path,
    format: Literal["torch", "onnx", "bundle"] = "torch",
    read_out: Literal["guide", "prior", "posterior"] | None = None,
    size: int | None = None,
) -> None:
    """Write a model's segmenter as a file that runs without this package; see docs/export.md.

    Args:
        model: a checkpoint, the model.pt of a run.
        out: what to write, which must not exist: a .pt2 file, an .onnx file or, for a bundle, a
            folder.
        format: "torch" for torch.export, "onnx" for ONNX, "bundle" for a MONAI bundle.
        read_out: segmentation by q(y | x), p(y | z) or p(y | x, z), z at its mean; by default the
            last where the model has q(y | x), else p(y | z).
        size: rows and columns of its slices; by default free multiples of 32 or 64, which takes
            longer to export.
    """
    from pyro_stitchnet.export.write import write

    written = write(model, out, format=format, read_out=read_out, size=size)
    print(
        f"{format}: {out}\nread-out: {written.about['read_out_meaning']}\n"
        f"largest difference from the checkpoint's probabilities: {written.difference:.1e}"
    )
