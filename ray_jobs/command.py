"""The command line that every job shares: settings in, one clear line and exit code 2 when something is wrong."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import transformers
import yaml
from ray.exceptions import RayError
from ray.train import TrainingFailedError

from optirag_core.config.settings import Settings
from optirag_core.config_file import ALIASES, load_settings
from optirag_core.errors import ConfigError
from ray_jobs.plan import print_plan
from ray_jobs.session import check_submitted, exit_on_sigterm, one_line_errors, own_error

QUIET_LOGGERS = ("ray", "ray.data", "ray.train", "matplotlib", "faiss.loader", "botocore")
"""Libraries whose INFO lines would drown the jobs' own."""


def run_job(job: Callable[..., object], *, arguments: Sequence[str] = ()) -> None:
    """Parse `sys.argv`, run `job(settings, **arguments)`, turn an `OptiragError` into one line and exit code 2.

    With `--plan` what the job will need is printed, with `--dry-run` all settings that it would have, and nothing run.

    Args:
        job: its docstring is the command's help.
        arguments: names of required arguments of this job beside the settings: `user_id` is `--user-id`.
    """
    with one_line_errors(), _own_errors():
        settings, given, instead = _parsed(sys.argv[1:], job.__doc__ or "", arguments)
        exit_on_sigterm()
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
        transformers.utils.logging.disable_progress_bar()
        for name in QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        if instead == "plan":
            print_plan(settings, job.__name__)
            return
        check_submitted(settings)
        if instead == "dry_run":
            print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), end="")
            return
        job(settings, **given)


@contextmanager
def _own_errors() -> Iterator[None]:
    """What a worker has raised of ours, out of what Ray has wrapped it in."""
    try:
        yield
    except (RayError, TrainingFailedError) as error:
        own = own_error(error)
        if own is None:
            raise
        raise own from None


def parse(argv: Sequence[str], *, arguments: Sequence[str] = ()) -> tuple[Settings, dict[str, str]]:
    """`--config FILE`, `--uncertified`, `--events`, and any number of `--section.key value`.

    Raises:
        ConfigError: an argument is no `--key value` pair, or the settings are wrong.
    """
    settings, given, _ = _parsed(argv, "", arguments)
    return settings, given


def _parsed(
    argv: Sequence[str], description: str, arguments: Sequence[str]
) -> tuple[Settings, dict[str, str], Literal["plan", "dry_run"] | None]:
    """Settings, the job's own arguments, and what is to be done instead of running it."""
    parser = argparse.ArgumentParser(
        description=description.splitlines()[0] if description else None,
        epilog=f"Any setting: --section.key value. Short names: {', '.join(f'--{name}' for name in ALIASES)}.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML file of settings, e.g. ray_jobs/configs/*.yaml"
    )
    parser.add_argument(
        "--uncertified", action="store_true", help="score by an exit policy of the settings that has no certificate"
    )
    parser.add_argument(
        "--events", action="store_true", help="the data set also holds what the endpoint's event log holds by now"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--plan", action="store_const", dest="instead", const="plan",
        help="print what it will need (memory, steps, FLOPs, hours), and run nothing",
    )  # fmt: skip
    instead.add_argument(
        "--dry-run", action="store_const", dest="instead", const="dry_run",
        help="check the settings, print all of them as they would be used, and run nothing",
    )  # fmt: skip
    for name in arguments:
        parser.add_argument(f"--{name.replace('_', '-')}", required=True)
    known, rest = parser.parse_known_args(argv)
    flags = [(key, "true") for key, given in _flags(known).items() if given]
    settings = load_settings(known.config, flags + _pairs(rest))
    return settings, {name: getattr(known, name) for name in arguments}, known.instead


def _flags(known: argparse.Namespace) -> dict[str, bool]:
    """Settings that a flag without a value turns on."""
    return {"exit_policy.uncertified": known.uncertified, "dataset.events": known.events}


def _pairs(rest: Sequence[str]) -> list[tuple[str, str]]:
    flat = [part for argument in rest for part in (argument.split("=", 1) if argument.startswith("--") else [argument])]
    pairs = []
    for place in range(0, len(flat), 2):
        key, *value = flat[place : place + 2]
        if not key.startswith("--") or not value:
            raise ConfigError(f"argument {key!r}: expected pairs --section.key value")
        pairs.append((key.removeprefix("--"), value[0]))
    return pairs
