"""Shrink the figures that the docs show, and write them to docs/images.

    make figures

draws them first: `benchmarks/counterfactuals.py` into one folder, `examples/queries.py` into the
other.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image


@dataclass
class Config:
    counterfactuals: tyro.conf.Positional[Path]  # of benchmarks/counterfactuals.py
    queries: tyro.conf.Positional[Path]  # of examples/queries.py
    out: Path = Path("docs/images")


def main(config: Config) -> None:
    sources = {
        "counterfactuals.jpg": (config.counterfactuals / "guided, true labels.png", 1300),
        "what_if.jpg": (config.queries / "counterfactuals.png", 1200),
        "uncertainty.jpg": (config.queries / "uncertainty.png", 1200),
        "levels.png": (config.queries / "levels.png", 1100),
        "grey.png": (config.queries / "grey.png", 1100),
    }
    config.out.mkdir(parents=True, exist_ok=True)
    for name, (source, width) in sources.items():
        with Image.open(source) as image:
            height = round(image.height * width / image.width)
            small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        if name.endswith(".png"):
            small = small.quantize(64)
        small.save(config.out / name, optimize=True)
        print(f"figure: {config.out / name}")


if __name__ == "__main__":
    main(tyro.cli(Config))
