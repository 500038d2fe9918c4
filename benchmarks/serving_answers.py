"""The same answer over HTTP and in a batch: prompts by their hashes, scores, exit layers.

    python -m benchmarks.serving_answers --out benchmarks/results/serving-answers.json --config FILE [--workspace DIR]

1,000 pairs of the test split: a run of the batch job (shards on Ray Data, its own composition of rows) beside calls
of all the candidates of a user. A layer may differ where a head's statistic is within 1e-5 of the threshold.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.endpoint import Asked, asked, call, endpoint
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import REQUESTS
from optirag_core.engine.loading import load_tokenizer
from optirag_core.inference.explain import prompt_sha256
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import open_assembler
from optirag_core.inference.prompts import assembled_prompts, groups_of
from optirag_core.inference.requests import test_requests
from optirag_core.runs.reader import read_scores
from ray_jobs.command import parse
from ray_jobs.score import score

NUM_PAIRS = 1000
Pair = tuple[str, str]


def main() -> None:
    job = asked(__doc__)
    requests = _requests(job)
    with tempfile.TemporaryDirectory() as folder:
        batch = _batch(job, requests, Path(folder))
    with endpoint(job.rest) as (address, _):
        online = asyncio.run(_online(address, requests))
    job.write("benchmarks.serving_answers", _compared(batch, online, _hashes(job, requests)))


def _requests(job: Asked) -> pa.Table:
    """Whole requests of at least so many pairs."""
    dataset = Dataset.load(open_artifacts(job.settings, "dataset")["dataset"].path)
    requests = test_requests(dataset, None, job.settings.seed).select(REQUESTS.names)
    pairs, rows = 0, 0
    while pairs < NUM_PAIRS:
        pairs += len(requests["item_ids"][rows])
        rows += 1
    return requests.slice(0, rows)


def _batch(job: Asked, requests: pa.Table, folder: Path) -> dict[Pair, tuple[float, int]]:
    file = folder / "requests.parquet"
    pq.write_table(requests, file)
    name = "serving-answers"
    asked_for = ["--requests.path", str(file), "--requests.max_users", "null", "--run.name", name]
    settings, _ = parse([*job.rest, *asked_for])
    score(settings)
    table = read_scores(f"{settings.workspace}/scores/{name}")
    return {(row["user_id"], row["item_id"]): (row["score"], row["exit_layer"]) for row in table.to_pylist()}


def _hashes(job: Asked, requests: pa.Table) -> dict[Pair, str]:
    """What the batch job's prompt builder makes of the requests."""
    artifacts = open_artifacts(job.settings, *TRAINED)
    assembler, _ = open_assembler(job.settings, artifacts, load_tokenizer(artifacts["llm"].path))
    prompts = assembled_prompts(assembler, requests)
    return {
        (user_id, item_id): prompt_sha256(group.prefix, suffix)
        for user_id, item_ids, group in zip(
            prompts["user_id"].to_pylist(), prompts["item_ids"].to_pylist(), groups_of(prompts), strict=True
        )
        for item_id, suffix in zip(item_ids, group.suffixes, strict=True)
    }


async def _online(address: str, requests: pa.Table) -> dict[Pair, dict[str, Any]]:
    """Item -> what the answer says, with each explained."""
    found = {}
    async with aiohttp.ClientSession(address) as session:
        for row in requests.to_pylist():
            body = {"user_id": row["user_id"], "item_ids": row["item_ids"], "explain": True}
            if row["as_of"] is not None:
                body["as_of"] = row["as_of"].isoformat()
            if row["as_of_position"] is not None:
                body["as_of_position"] = row["as_of_position"]
            sample = await call(session, "/v1/score", body, keep=True)
            if sample.status != 200:
                raise SystemExit(f"status {sample.status}: {sample.answer}")
            found |= {(row["user_id"], item["item_id"]): item for item in sample.answer["items"]}
    return found


def _compared(
    batch: dict[Pair, tuple[float, int]], online: dict[Pair, dict[str, Any]], hashes: dict[Pair, str]
) -> dict[str, Any]:
    differences = [abs(score - online[pair]["score"]) for pair, (score, _) in batch.items()]
    return {
        "pairs": len(batch),
        "missing": len(batch.keys() ^ {pair for pair, item in online.items() if item["score"] is not None}),
        "other_prompt_hashes": sum(online[pair]["explanation"]["prompt_sha256"] != hashes[pair] for pair in batch),
        "other_exit_layers": sum(layer != online[pair]["exit_layer"] for pair, (_, layer) in batch.items()),
        "largest_score_difference": max(differences),
    }


if __name__ == "__main__":
    main()
