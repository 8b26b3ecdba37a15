"""A MONAI bundle: the exported program and its configuration for a folder of slices."""

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.runtime.files import temporary_path, write_atomically

__all__ = ["inference", "metadata", "write_bundle"]

# JSON schema of a bundle's metadata, for MONAI's `verify_metadata`.
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)

# Oldest version of MONAI that the configuration was tested with.
MONAI = "1.5.0"


def write_bundle(
    folder: Path, program: bytes, description: Mapping[str, Any], stride: int, size: int | None
) -> None:
    """Write a bundle's folder, completely or not at all.

    Args:
        folder: a new folder.
        program: content of ``models/model.pt2``.
        description: see :func:`~pyro_stitchnet.export.metadata.describe`.
        stride: rows and columns of the input are multiples of it.
        size: rows and columns of the input; None if they are dynamic.
    """
    files: dict[str, str | bytes] = {
        "configs/metadata.json": json.dumps(metadata(description, stride, size), indent=4) + "\n",
        "configs/inference.json": json.dumps(inference(), indent=4) + "\n",
        "models/model.pt2": program,
        "docs/README.md": _readme(description),
    }
    temporary = temporary_path(folder)
    try:
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(temporary / name, content)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def metadata(description: Mapping[str, Any], stride: int, size: int | None) -> dict[str, Any]:
    """``configs/metadata.json`` of the bundle; the description is under ``stitchnet``."""
    side: int | str = size or f"{stride}*n"
    image: dict[str, Any] = {
        "type": "image",
        "spatial_shape": [side, side],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
    }
    return {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported from {description['checkpoint']}"},
        "monai_version": MONAI,
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {"pytorch-ignite": "0.5.0", "pillow": "10.0.0"},
        "name": "StitchNet",
        "task": description["task"],
        "description": f"StitchNet's {description['read_out_meaning']}",
        "authors": "pyro_stitchnet contributors",
        "copyright": "The trainer of the checkpoint; pyro_stitchnet itself is MIT",
        "image_classes": "one channel, grey values in [0, 1]",
        "pred_classes": f"{len(LABELS)} channels of probabilities: {', '.join(LABELS)}",
        "intended_use": description["intended_use"],
        "network_data_format": {
            "inputs": {
                "image": {
                    **image,
                    "format": "magnitude",
                    "modality": "CT",
                    "num_channels": 1,
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    **image,
                    "format": "segmentation",
                    "num_channels": len(LABELS),
                    "channel_def": {str(k): name for k, name in enumerate(LABELS)},
                }
            },
        },
        "stitchnet": description,
    }


def inference() -> dict[str, Any]:
    """``configs/inference.json``: from prepared slices to image files of label numbers."""
    # MONAI reads image files with columns first; the network takes rows first.
    transpose = {"_target_": "Transposed", "indices": [0, 2, 1]}
    return {
        "imports": ["$import glob", "$import torch", "$import torch.export.passes"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/slices'",
        "pattern": "*.png",
        "output_dir": "$@bundle_root + '/eval'",
        "black": 0,
        "white": 255,
        "batch_size": 1,
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "images": "$sorted(glob.glob(@dataset_dir + '/' + @pattern))",
        "program": "$torch.export.load(@bundle_root + '/models/model.pt2')",
        "network_def": "$torch.export.unflatten("
        "torch.export.passes.move_to_device_pass(@program, @device))",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {**transpose, "keys": "image"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": "@black",
                    "a_max": "@white",
                    "b_min": 0,
                    "b_max": 1,
                    "clip": True,
                },
                {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @images]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": "@batch_size",
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {**transpose, "keys": "pred"},
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_postfix": "labels",
                    "output_ext": ".png",
                    "output_dtype": "$torch.uint8",
                    "resample": False,
                    "separate_folder": False,
                },
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network_def",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$@evaluator.run()"],
    }


def _readme(description: Mapping[str, Any]) -> str:
    """``docs/README.md`` of the bundle."""
    steps = "\n".join(
        f"{i}. {step}" for i, step in enumerate(description["preprocessing_steps"], 1)
    )
    return f"""# StitchNet, exported from {description["checkpoint"]}

{description["intended_use"]}

From slices (N, 1, H, W) in [0, 1] to probabilities of {", ".join(LABELS)}:
{description["read_out_meaning"]}.

Preprocessing from a scan to slices, as for the training data:

{steps}

For a folder of prepared slices as PNG:

    python -m monai.bundle run --config_file configs/inference.json \\
        --bundle_root . --dataset_dir SLICES --output_dir LABELS

Use `--white 65535` for 16-bit images; `--batch_size 8` is faster if all have the same size.
"""
