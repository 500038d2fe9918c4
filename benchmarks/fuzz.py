"""Thousands of requests that no client would send: none may be answered with 5xx.

    pip install schemathesis
    python -m benchmarks.fuzz --out benchmarks/results/fuzz.json --config FILE --workspace DIR

schemathesis   requests drawn from the OpenAPI schema, valid ones and such that break it; seeded
corpus         `benchmarks/fuzz_corpus.py`: every field of every body with values that parsers disagree on, HTTP that is
               hardly any, one by one over a socket
huge           bodies of 200 MB, and connections whose Content-Length lies

Events that happen to be valid are stored: give it a workspace to throw away. What is closed without an answer is
counted apart; so is 503 with Retry-After, which a client may be told.
"""

import re
import select
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import hypothesis
import requests
import schemathesis
from schemathesis.generation import GenerationMode
from yarl import URL

from benchmarks.endpoint import asked, endpoint
from benchmarks.fuzz_corpus import requests as corpus
from benchmarks.fuzz_corpus import valid_bodies

EXAMPLES = 60
"""Of each operation and mode."""
HUGE = 200_000_000
TIMEOUT_S = 40.0
PATIENT_BYTES = 100_000
"""Until then an answer is waited for between two parts, so that a reset does not overtake it."""
CLOSED = "closed"
_STATUS = re.compile(rb"HTTP/1\.[01] ([2-5]\d\d)(?=.*\r\n\r\n)", re.DOTALL)


@dataclass(frozen=True)
class Outcome:
    """What became of one request; `status` is `CLOSED` where the connection ended without an answer."""

    source: str
    route: str
    status: str
    sent: str  # its beginning
    retry_after: bool = False


def main() -> None:
    job = asked(__doc__)
    with endpoint(job.rest) as (address, _):
        figures = measured(address)
    job.write("benchmarks.fuzz", {"schemathesis": schemathesis.__version__, **figures})


def measured(address: str, authorization: str = "Bearer none") -> dict[str, Any]:
    """Counts of all outcomes, by source, route and status."""
    bodies = valid_bodies(*_known(address, authorization))
    outcomes = [*_from_schema(address, authorization), *_from_corpus(address, authorization, bodies)]
    outcomes += _huge(address, authorization)
    by_route: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        by_route[outcome.route][outcome.status] += 1
    bad = [outcome for outcome in outcomes if outcome.status.startswith("5")]
    again = [outcome for outcome in bad if outcome.status == "503" and outcome.retry_after]
    return {
        "requests": len(outcomes),
        "by_source": dict(Counter(outcome.source for outcome in outcomes)),
        "by_status": dict(sorted(Counter(outcome.status for outcome in outcomes).items())),
        "answers_5xx": len(bad) - len(again),
        "answers_503_with_retry_after": len(again),
        "examples_5xx": [f"{outcome.status} {outcome.sent}" for outcome in bad[:20]],
        "huge": [f"{outcome.status} {outcome.sent}" for outcome in outcomes if outcome.source == "huge"],
        "by_route": {route: dict(sorted(found.items())) for route, found in sorted(by_route.items())},
        "well_afterwards": _well(address, authorization, bodies["/v1/score"]),
    }


def _known(address: str, authorization: str) -> tuple[str, str]:
    """A user and an item that the endpoint knows."""
    headers = {"Authorization": authorization}
    users = requests.get(f"{address}/v1/users?limit=1", headers=headers, timeout=TIMEOUT_S).json()["user_ids"]
    items = requests.get(f"{address}/v1/items?limit=1", headers=headers, timeout=TIMEOUT_S).json()["items"]
    return users[0], items[0]["item_id"]


def _from_schema(address: str, authorization: str) -> list[Outcome]:
    headers = {"Authorization": authorization}
    described = requests.get(f"{address}/openapi.json", headers=headers, timeout=TIMEOUT_S).json()
    outcomes: list[Outcome] = []
    for operation in (found.ok() for found in schemathesis.openapi.from_dict(described).get_all_operations()):
        for mode in GenerationMode:
            _draw(operation.as_strategy(generation_mode=mode), _caller(address, headers, outcomes))
    return outcomes


def _caller(address: str, headers: dict[str, str], outcomes: list[Outcome]) -> Callable[[schemathesis.Case], None]:
    def call(case: schemathesis.Case) -> None:
        sent = f"{case.method} {case.formatted_path} {str(case.body)[:300]}"
        try:
            response = case.call(base_url=address, headers=headers, timeout=TIMEOUT_S)
        except requests.exceptions.ConnectionError:
            outcomes.append(Outcome("schemathesis", case.path, CLOSED, sent))
            return
        again = "retry-after" in {name.lower() for name in response.headers}
        outcomes.append(Outcome("schemathesis", case.path, str(response.status_code), sent, again))

    return call


def _draw(cases: Any, call: Callable[[schemathesis.Case], None]) -> None:
    checks = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much]
    profile = hypothesis.settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=checks,
        phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    with suppress(hypothesis.errors.Unsatisfiable):  # there is nothing wrong to send where nothing is sent
        profile(hypothesis.given(cases)(call))()


def _from_corpus(address: str, authorization: str, bodies: dict[str, Any]) -> list[Outcome]:
    def outcome(asked: tuple[str, bytes]) -> Outcome:
        route, sent = asked
        status, again, _ = _exchanged(URL(address), iter([sent]))
        return Outcome("corpus", route, status, repr(sent[:300]), again)

    with ThreadPoolExecutor(8) as callers:
        return list(callers.map(outcome, corpus(bodies, authorization)))


def _huge(address: str, authorization: str) -> list[Outcome]:
    """Bodies without an end, and lengths that promise more than comes."""
    head = f"POST /v1/score HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\nContent-Type: application/json\r\n"
    block, blocks = b" " * 65_536, HUGE // 65_536
    chunk = b"10000\r\n" + block + b"\r\n"
    bodies = {
        f"Content-Length: {HUGE}": lambda: repeat(block, blocks),
        "Transfer-Encoding: chunked": lambda: repeat(chunk, blocks),
        "Content-Length: 1000000": lambda: iter([b"{}"]),  # the rest never comes
        "Content-Length: 5": lambda: repeat(block, blocks),  # far more comes
    }
    outcomes = []
    for framing, body in bodies.items():
        for _ in range(3):
            parts = chain([f"{head}{framing}\r\n\r\n".encode()], body())
            status, again, sent = _exchanged(URL(address), parts)
            outcomes.append(Outcome("huge", "/v1/score", status, f"{framing}, sent {sent:,} bytes", again))
    return outcomes


def _exchanged(address: URL, parts: Iterator[bytes]) -> tuple[str, bool, int]:
    """Send until something is answered; the answer's status, whether it says when to come again, and bytes sent."""
    sent, received = 0, b""
    with socket.create_connection((address.host, address.port), timeout=TIMEOUT_S) as connection:
        with suppress(TimeoutError, ConnectionError):
            for part in parts:
                connection.sendall(part)
                sent += len(part)
                if select.select([connection], [], [], 0 if sent > PATIENT_BYTES else 0.1)[0]:
                    break
        with suppress(TimeoutError, ConnectionError):
            while not _STATUS.search(received) and (got := connection.recv(65_536)):
                received += got
    status = _STATUS.search(received)
    return status[1].decode() if status else CLOSED, b"\r\nretry-after:" in received.lower(), sent


def _well(address: str, authorization: str, body: dict[str, Any]) -> bool:
    """Whether it still answers what it should."""
    time.sleep(1)
    headers = {"Authorization": authorization}
    return requests.post(f"{address}/v1/score", json=body, headers=headers, timeout=TIMEOUT_S).ok


if __name__ == "__main__":
    main()
