"""Start the endpoint on this machine behind its front proxy, and print its address; Ctrl-C ends it.

python -m serve_apps --config ray_jobs/configs/demo.yaml [--host 127.0.0.1] [--port 8000] [--section.key value ...]
"""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray_jobs.command import parse
from ray_jobs.session import one_line_errors
from serve_apps.app import Doors
from serve_apps.auth import new_token
from serve_apps.local import LOOPBACK, started


def main() -> None:
    """Run until Ctrl-C or SIGTERM."""
    given, rest = _parser().parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # a warning that a token is asked for
    with suppress(KeyboardInterrupt), one_line_errors():
        settings, _ = parse(rest)
        with (
            _doors(given) as (doors, hint),
            started(
                settings, doors, host=given.host, port=given.port, tls_certificate=given.tls_certificate
            ) as front,
        ):  # fmt: skip
            scheme = "https" if given.tls_certificate else "http"
            print(f"OptiRAG answers at {scheme}://{front.host}:{front.port}/  {hint}", flush=True)
            front.stay()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serve_apps", description=__doc__.splitlines()[0], allow_abbrev=False,
        epilog="all other arguments are those of a job: --config FILE [--section.key value ...]",
    )  # fmt: skip
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on; 0.0.0.0 is all of this machine")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--tokens", help="file of token hashes (serve_apps/auth.py); default: one token for this run")
    parser.add_argument("--insecure-no-auth", action="store_true", help="everybody who reaches the port may ask")
    parser.add_argument("--tls-certificate", type=Path, help="PEM of certificate chain and key")
    return parser


@contextmanager
def _doors(given: argparse.Namespace) -> Iterator[tuple[Doors, str]]:
    """Who gets in, and what the terminal says of it: with nothing given, a token that ends with this run."""
    if given.insecure_no_auth:
        yield Doors(None, True), "(no token is asked for)"
    elif given.tokens or any(name in os.environ for name in ("OPTIRAG_TOKEN_FILE", "OPTIRAG_TOKEN_HASHES")):
        yield Doors(given.tokens, False), "(with a token)"
    else:
        token, line = new_token("this-run")
        with tempfile.TemporaryDirectory(prefix="optirag-") as folder:
            file = Path(folder, "tokens")
            file.write_text(line + "\n", encoding="utf-8")
            yield Doors(str(file), False), f"user: any, password and bearer token of this run: {token}"


if __name__ == "__main__":
    main()
