"""The README's examples work as they stand."""

import re
from pathlib import Path

import pytest

from pyro_stitchnet.config import from_yaml

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.filterwarnings("ignore:.*found no sample sites configured for enumeration")
def test_python_example() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, str(README), "exec"), names)
    assert names["answer"].labels.shape == (2, 64, 64)  # type: ignore[attr-defined]
    assert names["labelled"] > names["unlabelled"]  # type: ignore[operator]


def test_yaml_example(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    path = tmp_path / "run.yaml"
    path.write_text(example)
    config = from_yaml(path)
    config.check()
    assert (config.steps, config.patience, config.optimiser.ema) == (20000, 20, 0.999)
