"""Shrink the pictures that the docs show, and put them into docs/images.

    make figures

draws them first: `benchmarks/counterfactuals.py` into one folder, `examples/ask.py` into another.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image


@dataclass
class Config:
    counterfactuals: tyro.conf.Positional[Path]  # of benchmarks/counterfactuals.py
    asked: tyro.conf.Positional[Path]  # of examples/ask.py
    out: Path = Path("docs/images")


def main(config: Config) -> None:
    wanted = {
        "counterfactuals.jpg": (config.counterfactuals / "guided, true labels.png", 1300),
        "what_if.jpg": (config.asked / "counterfactuals.png", 1200),
        "uncertainty.jpg": (config.asked / "uncertainty.png", 1200),
        "levels.png": (config.asked / "levels.png", 1100),
        "grey.png": (config.asked / "grey.png", 1100),
    }
    config.out.mkdir(parents=True, exist_ok=True)
    for name, (source, width) in wanted.items():
        with Image.open(source) as picture:
            height = round(picture.height * width / picture.width)
            small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        if name.endswith(".png"):
            small = small.quantize(64)
        small.save(config.out / name, optimize=True)
        print(f"picture: {config.out / name}")


if __name__ == "__main__":
    main(tyro.cli(Config))
