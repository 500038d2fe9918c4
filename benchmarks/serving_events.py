"""Events: from a cold start to a personal ranking, how soon every replica knows, and what kills cost.

    python -m benchmarks.serving_events --out benchmarks/results/serving-events.json --config FILE [--workspace DIR]

personal   new users: a ranking, five ratings posted, the same ranking again; milliseconds from the post on
spread     3 context builders behind 2 ingresses: when the last answer came that did not know an acknowledged event
kills      20 SIGKILLs of any replica while events are posted: acknowledged events that the log lacks, or has twice

The workspace's log gets events: give a copy.
"""

import os
import random
import signal
import statistics
import threading
import time
import uuid
from collections import Counter
from typing import Any

import httpx
import numpy as np

from benchmarks.endpoint import Asked, asked, endpoint, replicas
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.events.event import UserEvent
from optirag_core.events.event_log import EventLog
from optirag_core.inference.opening import open_artifacts
from optirag_core.storage.base import open_storage
from serve_apps.client import Client, ClientError
from serve_apps.schemas import Interaction

NEW_USERS = 20
RATINGS = 5
SPREADS = 20
KILLS = 20
POSTERS = 2
DEPLOYMENTS = ("Endpoint", "ContextBuilder", "Scorer")
SETTINGS = [
    "--actors.torch_threads", "1", "--actors.num_cpus_per_scorer", "0.5", "--ray.num_cpus", "12",
    "--serving.num_context_builders", "3", "--serving.num_ingresses", "2",
]  # fmt: skip


def main() -> None:
    job = asked(__doc__)
    dataset = Dataset.load(open_artifacts(job.settings, "dataset")["dataset"].path)
    items = dataset.items["item_id"].to_pylist()
    with endpoint([*job.rest, *SETTINGS]) as (address, pid):
        figures = {"personal": _personal(address, items), "spread": _spread(address, items)}
        figures["kills"] = _kills(job, address, pid, items)
    job.write("benchmarks.serving_events", figures)


def _ratings(user_id: str, items: list[str], generator: np.random.Generator, number: int) -> list[Interaction]:
    chosen = generator.choice(items, number, replace=False).tolist()
    ratings = generator.integers(1, 11, number).tolist()
    return [
        Interaction(event_id=str(uuid.uuid4()), user_id=user_id, item_id=item, rating=rating)
        for item, rating in zip(chosen, ratings, strict=True)
    ]


def _personal(address: str, items: list[str]) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    seconds, changed, cold_before, cold_after, similar = [], 0, 0, 0, []
    with Client(address) as client:
        for number in range(NEW_USERS):
            user_id = f"new-{number}-{uuid.uuid4().hex[:6]}"
            asked_items = generator.choice(items, 20, replace=False).tolist()
            before = client.rank(user_id, asked_items)
            began = time.perf_counter()
            client.interactions(_ratings(user_id, items, generator, RATINGS))
            after = client.rank(user_id, asked_items)
            seconds.append(time.perf_counter() - began)
            cold_before += before.cold_start
            cold_after += after.cold_start
            similar.append(after.num_similar_users)
            changed += [item.item_id for item in before.items] != [item.item_id for item in after.items]
    return {
        "new_users": NEW_USERS, "cold_before": cold_before, "cold_after": cold_after,
        "similar_users_after": dict(Counter(map(str, similar))), "rankings_changed": changed,
        "ms_from_post_to_personal_ranking": {
            "median": round(1e3 * statistics.median(seconds), 1), "largest": round(1e3 * max(seconds), 1),
        },
    }  # fmt: skip


def _spread(address: str, items: list[str]) -> dict[str, Any]:
    """The last stale answer after an acknowledged event; answers come from every builder by way of both ingresses."""
    generator = np.random.default_rng(1)
    stale_ms = []
    for number in range(SPREADS):
        user_id = f"spread-{number}-{uuid.uuid4().hex[:6]}"
        with Client(address) as client:
            client.interactions(_ratings(user_id, items, generator, 1))
        began, last = time.perf_counter(), 0.0
        while time.perf_counter() - began < 1.5:
            answer = httpx.get(f"{address}/v1/users/{user_id}").json()  # a fresh connection: any ingress
            if not answer["history"]:
                last = time.perf_counter() - began
        stale_ms.append(round(1e3 * last, 1))
    return {
        "events": SPREADS,
        "last_stale_answer_ms": {"median": statistics.median(stale_ms), "largest": max(stale_ms)},
    }


def _kills(job: Asked, address: str, pid: int, items: list[str]) -> dict[str, Any]:
    acknowledged: list[str] = []
    failed: Counter[str] = Counter()
    ends = threading.Event()

    def post(number: int) -> None:
        generator = np.random.default_rng(100 + number)
        with Client(address, max_retries=12) as client:
            while not ends.is_set():
                events = _ratings(f"poster-{number}", items, generator, 3)
                try:
                    answer = client.interactions(events)
                except ClientError as error:
                    failed[type(error).__name__] += 1
                    continue
                acknowledged.extend(outcome.event_id for outcome in answer.outcomes if outcome.status != "refused")

    threads = [threading.Thread(target=post, args=(number,), daemon=True) for number in range(POSTERS)]
    for thread in threads:
        thread.start()
    killed: Counter[str] = Counter()
    chooser = random.Random(0)
    while sum(killed.values()) < KILLS:
        time.sleep(chooser.uniform(2.0, 6.0))
        deployment = chooser.choice(DEPLOYMENTS)
        if running := replicas(pid, deployment):
            os.kill(chooser.choice(running).pid, signal.SIGKILL)
            killed[deployment] += 1
    time.sleep(20.0)
    ends.set()
    for thread in threads:
        thread.join()
    stored = _stored(job.settings)
    return {
        "kills": dict(killed), "acknowledged": len(acknowledged), "posts_given_up": dict(failed),
        "lost": sum(event_id not in stored for event_id in acknowledged),
        "twice": sum(count > 1 for count in stored.values()),
    }  # fmt: skip


def _stored(settings: Settings) -> Counter[str]:
    """How often each event would be applied by a replica that starts now."""
    found: Counter[str] = Counter()

    def apply(events: list[UserEvent]) -> None:
        found.update(event.event_id for event in events)

    EventLog(open_storage(settings.workspace, settings.storage), apply).read()
    return found


if __name__ == "__main__":
    main()
