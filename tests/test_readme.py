"""The README's Python example runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.filterwarnings("ignore:.*found no sample sites configured for enumeration")
def test_python_example() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, str(README), "exec"), names)
    assert names["answer"].labels.shape == (2, 64, 64)  # type: ignore[attr-defined]
    assert names["labelled"] > names["unlabelled"]  # type: ignore[operator]
