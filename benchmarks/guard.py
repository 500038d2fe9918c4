"""The endpoint's guards: who is let in without a valid token, and what 300 slow connections do to everybody else.

    python -m benchmarks.guard --out benchmarks/results/guard.json --config FILE [--workspace DIR]

tokens   every route of the OpenAPI schema, of the page and some that there are not: without a token, with a wrong one,
         with one that was valid a second before, and, to compare, with a valid one
slow     300 connections that send a byte a second, or none, and come again as soon as they are closed; one caller
         who asks all the time, without them and with them in turn
"""

import asyncio
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from yarl import URL

from benchmarks.endpoint import Body, Sample, asked, closed_loop, endpoint, quantiles_ms
from serve_apps.auth import LOOK_S, new_token

OPEN = ("/healthz", "/readyz")
BESIDE_SCHEMA = ("/", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc", "/metrics", "/none", "/page/none")
NUM_SLOW = 300
GIVE_UP_S = 60.0
TURN_S = 20.0
TURNS = 3
CANDIDATES = 10


@dataclass(frozen=True)
class Slow:
    """A connection that takes its time.

    Args:
        begins: what it sends at once; `TOKEN` stands for a valid one.
        drips: what it sends every second.
    """

    begins: bytes
    drips: bytes = b""


_POST = b"POST /v1/score HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer TOKEN\r\nContent-Type: application/json\r\n"
KINDS = {
    "headers": Slow(b"GET /v1/model HTTP/1.1\r\nHost: a\r\nX-Slow: ", b"x"),
    "body": Slow(_POST + b"Content-Length: 100000\r\n\r\n{", b" "),
    "chunked_body": Slow(_POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "silent": Slow(b""),
    "idle_after_an_answer": Slow(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"),
}


def main() -> None:
    job = asked(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder, "tokens")
        (kept, line), (rotated, rotated_line) = new_token("kept"), new_token("rotated-out")
        tokens.write_text(f"{line}\n{rotated_line}\n", encoding="utf-8")
        with endpoint(["--tokens", str(tokens), *job.rest], open_to_all=False) as (address, _):
            before = asyncio.run(status(address, "GET", "/openapi.json", rotated))
            tokens.write_text(f"{line}\n", encoding="utf-8")
            time.sleep(LOOK_S + 0.5)
            refusals = asyncio.run(refused(address, kept, rotated))
            slow = asyncio.run(slowed(address, kept))
    job.write("benchmarks.guard", {"tokens": {"rotated_out_before": before, **refusals}, "slow": slow})


async def refused(address: str, valid: str, rotated: str) -> dict[str, Any]:
    """Statuses of all routes, by token."""
    routes = await _routes(address, valid)
    presented = {"without": None, "wrong": "wrong", "rotated_out": rotated, "valid": valid}
    found = {
        name: [await status(address, method, path, token) for method, path in routes]
        for name, token in presented.items()
    }
    return {
        "routes": len(routes),
        **{name: dict(Counter(map(str, statuses))) for name, statuses in found.items()},
        "not_refused": sorted(
            {f"{method} {path}" for name in ("without", "wrong", "rotated_out")
             for (method, path), answered in zip(routes, found[name], strict=True) if answered != 401}
        ),
        "open": {path: await status(address, "GET", path, None) for path in OPEN},
    }  # fmt: skip


async def _routes(address: str, token: str) -> list[tuple[str, str]]:
    """Method and path of everything that can be asked for."""
    async with aiohttp.ClientSession(address, headers={"Authorization": f"Bearer {token}"}) as session:
        schema = await (await session.get("/openapi.json")).json()
        page = await (await session.get("/")).text()
    paths = [path for path in schema["paths"] if path not in OPEN]
    routes = [(method.upper(), re.sub(r"\{\w+\}", "x", path)) for path in paths for method in schema["paths"][path]]
    files = [str(URL("/").join(URL(link))) for link in re.findall(r"(?:src|href)=\"([^\"#:]+)\"", page)]
    return routes + [(method, path) for path in (*BESIDE_SCHEMA, *files) for method in ("GET", "HEAD", "POST")]


async def status(address: str, method: str, path: str, token: str | None) -> int:
    """Of one request."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = {"json": {}} if method == "POST" else {}
    async with (
        aiohttp.ClientSession(address, headers=headers) as session,
        session.request(method, path, **body) as response,
    ):
        return response.status


async def slowed(address: str, token: str) -> dict[str, Any]:
    """Latency of a caller without and with slow connections, and how long these are borne."""
    mine = str(URL(address).with_user("any").with_password(token))
    bodies = await _bodies(mine)
    turns: list[tuple[list[Sample], list[Sample]]] = []
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    await closed_loop(mine, "/v1/score", bodies, callers=1, seconds=3)  # warm
    for _ in range(TURNS):
        quiet = await closed_loop(mine, "/v1/score", bodies, callers=1, seconds=TURN_S)
        ends = time.perf_counter() + TURN_S + 1
        holders = [
            asyncio.create_task(_held(address, KINDS[kind], token, ends, seconds[kind]))
            for kind, _ in zip(cycle(KINDS), range(NUM_SLOW), strict=False)
        ]
        await asyncio.sleep(1)
        busy = await closed_loop(mine, "/v1/score", bodies, callers=1, seconds=TURN_S)
        turns.append((quiet, busy))
        await asyncio.gather(*holders)
    quiet, busy = (list(chain.from_iterable(samples)) for samples in zip(*turns, strict=True))
    return {
        "connections": NUM_SLOW,
        "closed_after_s": {kind: _spread(found) for kind, found in seconds.items()},
        "longest_s": round(max(map(max, seconds.values())), 2),
        "statuses": dict(Counter(str(sample.status) for sample in (*quiet, *busy))),
        "quiet_ms": quantiles_ms(quiet),
        "busy_ms": quantiles_ms(busy),
        "busy_over_quiet": _ratios(quiet, busy),
        "busy_over_quiet_by_turn": [_ratios(*turn) for turn in turns],
    }


async def _bodies(address: str) -> Iterator[Body]:
    """Endless requests of users and items that the endpoint itself names."""
    async with aiohttp.ClientSession(address) as session:
        users = (await (await session.get("/v1/users?limit=100")).json())["user_ids"]
        items = (await (await session.get("/v1/items?limit=100")).json())["items"]
    generator, ids = np.random.default_rng(0), [item["item_id"] for item in items]
    chosen = [
        {"user_id": user, "item_ids": generator.choice(ids, min(CANDIDATES, len(ids)), replace=False).tolist()}
        for user in users
    ]
    return cycle(chosen)


async def _held(address: str, kind: Slow, token: str, ends: float, seconds: list[float]) -> None:
    """One slow connection after another; the last that is begun before the end is seen to its own."""
    while time.perf_counter() < ends:
        began = time.perf_counter()
        await _until_closed(URL(address), kind, token)
        seconds.append(time.perf_counter() - began)


async def _until_closed(address: URL, kind: Slow, token: str) -> None:
    """Ends when the other side has closed, or after `GIVE_UP_S`."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(kind.begins.replace(b"TOKEN", token.encode()))
    for _ in range(int(GIVE_UP_S)):
        try:
            async with asyncio.timeout(1.0):
                while await reader.read(65536):
                    pass
            break
        except TimeoutError:
            writer.write(kind.drips)
        except ConnectionError:
            break
    writer.close()


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    found = {f"p{share}": float(np.percentile(seconds, share)) for share in (0, 50, 99, 100)}
    return {"connections": len(seconds), **{name: round(value, 2) for name, value in found.items()}}


def _ratios(quiet: Sequence[Sample], busy: Sequence[Sample]) -> dict[str, float]:
    before, meanwhile = quantiles_ms(quiet), quantiles_ms(busy)
    return {name: round(meanwhile[name] / before[name], 3) for name in before}


if __name__ == "__main__":
    main()
