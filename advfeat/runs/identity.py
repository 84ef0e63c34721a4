"""What makes two runs the same: the experiment and its flags, kept in run.json."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from advfeat.runs.files import plain, read_json

RUN = "run.json"
_ABSENT = "(absent)"


def flags_json(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Returns flags as run.json holds them."""
    # eps may be infinite, which must not become null, the same as "no value".
    return plain(dict(flags), nonfinite="text")


def read_record(path: pathlib.Path) -> dict[str, Any]:
    """Reads run.json.

    Raises:
      ValueError: if the directory holds none.
    """
    try:
        record = read_json(path / RUN)
        kinds = {"experiment": str, "flags": dict, "resumed": list}
        if all(isinstance({"resumed": [], **record}[key], kind) for key, kind in kinds.items()):
            return record
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"workdir {path} is not empty and holds no run ({RUN}): choose another")


def check_same(
    path: pathlib.Path, record: Mapping[str, Any], flags: Mapping[str, Any], name: str
) -> None:
    """Raises if `record` belongs to another experiment or other flags."""
    advice = "choose another workdir, or --overwrite"
    if record["experiment"] != name:
        raise ValueError(
            f"workdir {path} holds a run of {record['experiment']}, not of {name}; {advice}"
        )
    stored = record["flags"]
    for key in [*flags, *(key for key in stored if key not in flags)]:
        there, here = stored.get(key, _ABSENT), flags.get(key, _ABSENT)
        if there != here:
            raise ValueError(
                f"workdir {path} holds a run with --{key}={_text(there)}, "
                f"not --{key}={_text(here)}; {advice}"
            )


def _text(value: Any) -> str:
    """Formats a flag's value as it would be typed."""
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
