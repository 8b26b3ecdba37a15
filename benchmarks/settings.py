"""A script goes on from results in its folder only if they were made with the same settings."""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from pyro_stitchnet.runtime.checksums import read_json, write_json

__all__ = ["keep_settings"]


def keep_settings(config: Any, free: Collection[str] = (), **content: str) -> None:
    """Record the settings of a script in its folder ``config.out``, which is made.

    Args:
        config: a dataclass.
        free: fields that may change between two runs, besides ``out``.
        content: digests of what the files behind paths hold.

    Raises:
        ValueError: the folder has results of other settings.
    """
    settings = {k: str(v) for k, v in asdict(config).items() if k not in {"out", *free}} | content
    path = config.out / "settings.json"
    if path.exists():
        before = read_json(path)
        if differ := sorted(k for k in settings if settings[k] != before.get(k)):
            raise ValueError(
                f"{config.out}: has results of other settings ({', '.join(differ)}); choose "
                "another --out"
            )
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)
