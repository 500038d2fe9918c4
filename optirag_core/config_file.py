"""Settings from one YAML file, overridden by `section.key value` pairs; an unknown key fails with the nearest name."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from optirag_core.config.settings import Settings
from optirag_core.errors import ConfigError

ALIASES = {
    "data": "dataset.path",
    "header": "dataset.header",
    "all-items": "requests.all_items_top_k",
    "only": "reproduce.parts",
}
"""Short names that the command line accepts beside dotted keys."""


def load_settings(path: Path, overrides: Sequence[tuple[str, str]] = ()) -> Settings:
    """Read a YAML file, apply overrides in order, validate.

    Args:
        path: YAML file with a mapping of sections.
        overrides: dotted key (or a name of `ALIASES`) and a YAML scalar or list, e.g. ("run.name", "night").

    Raises:
        ConfigError: the file is missing or no mapping; a key is unknown; a value is out of bounds.
    """
    if not path.is_file():
        raise ConfigError(f"no settings file at {path}: give --config FILE, e.g. ray_jobs/configs/demo.yaml")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds a {type(raw).__name__}, expected a mapping of sections")
    for key, text in overrides:
        _assign(raw, ALIASES.get(key, key).split("."), _scalar(text))
    return settings_from(raw)


def settings_from(raw: Mapping[str, Any]) -> Settings:
    """Validate a plain mapping.

    Raises:
        ConfigError: one line for the first problem, with the nearest valid key for an unknown one.
    """
    try:
        return Settings.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError(_describe(error)) from None


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its booleans `yes`, `no`, `on`, `off` and its dates, which are words here."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("bool", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|false|False)$"), list("tTfF"))


def _scalar(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        return text


def _assign(raw: dict[str, Any], keys: list[str], value: Any) -> None:
    for depth, key in enumerate(keys[:-1]):
        if raw.get(key) is None:
            raw[key] = {}
        raw = raw[key]
        if not isinstance(raw, dict):
            raise ConfigError(f"{'.'.join(keys[: depth + 1])} is a single value: it has no key {keys[depth + 1]!r}")
    raw[keys[-1]] = value


def _describe(error: ValidationError) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    name = ".".join(location) or "settings"
    if first["type"] == "extra_forbidden":
        return f"unknown setting {name}: {_nearest(location)}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    return f"{name}: got {first['input']!r}: {first['msg']}"


def _nearest(location: list[str]) -> str:
    section: Any = Settings
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    close = difflib.get_close_matches(location[-1], section.model_fields, n=1, cutoff=0.5)
    parent = ".".join(location[:-1])
    if close:
        return f"did you mean {'.'.join([*location[:-1], close[0]])}?"
    return f"valid keys of {parent or 'the settings'} are {', '.join(section.model_fields)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
