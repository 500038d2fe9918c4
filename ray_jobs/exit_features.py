"""Frozen LLM -> its hidden states at labelled pairs, once for all heads and policies: `exit_features` (Ray Data).

python -m ray_jobs.exit_features --config ray_jobs/configs/demo.yaml
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from ray.actor import ActorHandle
from tqdm import tqdm
from transformers import AutoConfig

from optirag_core.artifacts import Artifact, scratch_folder
from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from
from optirag_core.data.dataset import Dataset
from optirag_core.engine.cost import ModelShape
from optirag_core.engine.loading import load_tokenizer
from optirag_core.engine.memory import keep_freed_memory
from optirag_core.engine.states import window_layers
from optirag_core.errors import DataError
from optirag_core.inference.opening import Pin, open_artifacts
from optirag_core.inference.parts import check_prompts_fit, open_assembler, open_recorders
from optirag_core.inference.requests import test_requests
from optirag_core.recipes import exit_features_recipe
from optirag_core.training.exit_features import features_of, labelled_prompts, labelled_requests, save_features
from optirag_core.training.finished_features import FinishedFeatures
from ray_jobs.command import run_job
from ray_jobs.run_board import noted
from ray_jobs.session import ray_session
from ray_jobs.shard_stream import Stage, shard_row, shard_table, through_stages

log = logging.getLogger(__name__)
REQUESTS_PER_SHARD = 64
"""Of about 1,000 tokens each: a minute and a half of two CPU cores with a Llama of 100 M parameters."""


def exit_features(settings: Settings) -> Artifact:
    """Run the frozen LLM once over the answers of the heads' and the policy's users and of the test split."""
    artifacts = open_artifacts(settings, "dataset", "evidence", "retriever", "index", "llm")
    recipe = exit_features_recipe(settings, artifacts.digests)
    if done := recipe.made(artifacts.workspace):
        return done
    check_prompts_fit(settings, artifacts)
    dataset = Dataset.load(artifacts["dataset"].path)
    asked = test_requests(dataset, settings.exit_features.test_users, settings.seed)
    requests = labelled_requests(dataset, asked, settings.exit_features.max_users)
    if not len(requests):
        raise DataError("there is no labelled pair: raise dataset.split.validation_share or test_share")
    arguments = {"settings": settings.model_dump(mode="json"), "pins": artifacts.pins}
    stages = Stage(BuildLabelledPrompts, arguments), Stage(RecordStates, arguments)
    shape = ModelShape.of(AutoConfig.from_pretrained(artifacts["llm"].path))
    finished = FinishedFeatures(artifacts.workspace, recipe.training)
    with ray_session(settings.ray), scratch_folder() as files:
        num_pairs = save_features(_tables(requests, finished, *stages, settings), shape, files)
        artifact = recipe.save(artifacts.workspace, files, {"requests": len(requests), "pairs": num_pairs})
    log.info("exit features: hidden states of %d labelled pairs", num_pairs)
    return artifact


def _tables(
    requests: pa.Table, finished: FinishedFeatures, build: Stage, record: Stage, settings: Settings
) -> Iterator[tuple[int, pa.Table]]:
    """Features by the number of their shard: what a killed job has left, then the rest."""
    starts = range(0, len(requests), REQUESTS_PER_SHARD)
    left = []
    for number, start in enumerate(starts):
        table = finished.read(start, start + REQUESTS_PER_SHARD)
        if table is None:
            left.append(number)
        else:
            yield number, table
    if len(left) < len(starts):
        log.info("exit features: %d of %d shards are finished already", len(starts) - len(left), len(starts))
    if not left:
        return
    shards = [shard_row(number, requests.slice(starts[number], REQUESTS_PER_SHARD)) for number in left]
    units = [row for shard in shards for row in shard.to_pylist()]
    bar = tqdm(desc="exit features", unit="shard", total=len(starts), initial=len(starts) - len(left))
    with closing(bar), closing(through_stages(units, build, record, settings)) as blocks:
        for block in blocks:
            number, table = shard_table(block)
            finished.write(starts[number], starts[number] + REQUESTS_PER_SHARD, table)
            bar.update()
            yield number, table


class BuildLabelledPrompts:
    """A shard of labelled requests -> their prompts and answers."""

    def __init__(self, settings: dict[str, Any], pins: Mapping[str, Pin], board: ActorHandle) -> None:
        loaded = settings_from(settings)
        artifacts = open_artifacts(loaded, *pins, pins=pins)
        self._assembler, _ = open_assembler(loaded, artifacts, load_tokenizer(artifacts["llm"].path))
        self._board = board

    def __call__(self, row: pa.Table) -> pa.Table:
        number, requests = shard_table(row)
        with noted(self._board, "build", number):
            return shard_row(number, labelled_prompts(self._assembler, requests))


class RecordStates:
    """Prompts of a shard -> hidden states of their last tokens."""

    def __init__(self, settings: dict[str, Any], pins: Mapping[str, Pin], board: ActorHandle) -> None:
        loaded = settings_from(settings)
        on_gpu = loaded.actors.num_gpus_per_scorer > 0
        torch.set_num_threads(loaded.actors.torch_threads)
        if not on_gpu:
            keep_freed_memory()
        artifacts = open_artifacts(loaded, *pins, pins=pins)
        self._scorers = open_recorders(loaded, artifacts, device="cuda" if on_gpu else "cpu")
        num_layers = AutoConfig.from_pretrained(artifacts["llm"].path).num_hidden_layers
        self._layers = window_layers(loaded.exit_heads.layers, loaded.exit_policy.window, num_layers)
        self._board = board

    def __call__(self, row: pa.Table) -> pa.Table:
        number, prompts = shard_table(row)
        with noted(self._board, "score", number):
            features = [features_of(self._scorers[None], prompts, self._layers)]
            choosing = prompts.filter(pc.equal(prompts["purpose"], "policy"))
            features += [
                features_of(scorer, choosing, self._layers)
                for frozen, scorer in self._scorers.items()
                if frozen and len(choosing)
            ]
            return shard_row(number, pa.concat_tables(features))


if __name__ == "__main__":
    run_job(exit_features)
