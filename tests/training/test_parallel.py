"""Two gloo workers, whole weights or parts of them, train what one process trains."""

import functools
import json

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from optirag_core.artifacts import Workspace
from optirag_core.config.data import RetrieverSettings
from optirag_core.config.exits import ExitHeadsSettings
from optirag_core.config.llm import LoraSettings, TuningSettings
from optirag_core.engine.heads import ExitHeads
from optirag_core.retrieval.graph import build_graph
from optirag_core.training import text_retriever
from optirag_core.training.checkpoints import Checkpoints
from optirag_core.training.exit_heads import HeadSamples, train_exit_heads
from optirag_core.training.llm import tune_llm
from optirag_core.training.retriever import train_retriever
from optirag_core.training.workers import Workers
from tests.conftest import tiny_llama
from tests.retrieval.encoders import node_texts, tiny_encoder
from tests.retrieval.reference_retrieval import interactions

from .conftest import ANSWERS, random_samples

pytestmark = pytest.mark.slow
TUNING = TuningSettings(
    batch_tokens=60, batches_per_step=2, epochs=2, learning_rate=3e-3, history_loss_weight=0.5, select_epoch=True
)
BFLOAT16 = 2e-3
"""Muon orthogonalises in bfloat16: what rounds otherwise there differs by more than the rest does."""
ADAPTERS = LoraSettings(rank=4, alpha=8, dropout=0.0, modules=("q_proj", "v_proj", "up_proj"))


def checkpoints_of(folder, name):
    return Checkpoints(Workspace(str(folder)), f".training/{name}-0123", every_s=0.0)


class Losses(list):
    """Of steps or epochs; ends the training at the `kill`-th, before the checkpoint that follows."""

    def __init__(self, kill=None):
        self.calls, self.kill = 0, kill

    def add(self, *losses):
        self.extend(losses)
        self.calls += 1
        if self.calls == self.kill:
            raise InterruptedError


def llm(workers, *, lora=None, recompute=False, checkpoints=None, kill=None, **changes):
    """20 samples in batches of 1 to 4 rows: some leave the second worker without any."""
    losses = Losses(kill)
    tuned = tune_llm(
        tiny_llama(tie_word_embeddings=lora is None), random_samples(20), ANSWERS, TUNING.model_copy(update=changes),
        seed=0, lora=lora, validation=random_samples(7, seed=1), workers=workers, recompute=recompute,
        checkpoints=checkpoints, on_step=lambda step: losses.add(step.loss),
    )  # fmt: skip
    return [*losses, *(epoch["validation_loss"] for epoch in tuned.epochs)], tuned.llm and tuned.llm.state_dict()


def heads(workers, checkpoints=None, kill=None):
    generator = torch.Generator().manual_seed(0)
    model = tiny_llama()
    states = {layer: torch.randn(52, 32, generator=generator) for layer in (2, 3, 4)}
    answers = HeadSamples(states, None, torch.randint(0, 2, (52,), generator=generator).float())
    trained, losses = ExitHeads(model, (2, 3), ANSWERS), Losses(kill)
    settings = ExitHeadsSettings(layers=(2, 3), learning_rate=0.01, epochs=3, batch_size=10)  # the last batch has 1
    train_exit_heads(
        trained, answers.take(slice(41)), settings, seed=0, validation=answers.take(slice(41, 52)), workers=workers,
        checkpoints=checkpoints, on_epoch=lambda _, loss: losses.add(loss),
    )  # fmt: skip
    return losses, trained.state_dict()


def retriever(workers, checkpoints=None, kill=None, **changes):
    rows = [(f"u{user:02}", f"i{(user * step + step) % 16:02}") for user in range(24) for step in (1, 2, 3, 5)]
    held_out = interactions(*((f"u{user:02}", f"i{(user + 7) % 16:02}") for user in range(24)), split="validation")
    training = {"batch_size": 15, "max_epochs": 4, "patience": 3, "learning_rate": 0.05}
    settings = RetrieverSettings(embedding_dim=8, **training, **changes)
    graph = build_graph(interactions(*dict.fromkeys(rows)))
    losses = Losses(kill)
    trained = train_retriever(
        graph, held_out, settings, seed=0, workers=workers, checkpoints=checkpoints,
        on_epoch=lambda _, entry: losses.add(*entry.values()),
    )  # fmt: skip
    return losses, trained and {"users": trained.user_embeddings, "items": trained.item_embeddings}


def text(workers):
    """24 users and 16 items in chunks of 7: the first worker has one more."""
    rows = interactions(*((f"u{user:02}", f"i{(user * step) % 16:02}") for user in range(24) for step in (1, 3)))
    graph = build_graph(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_retriever, "TEXTS_PER_CHUNK", 7)
        read = text_retriever.read_retriever(graph, node_texts(rows), tiny_encoder("bert"), workers=workers)
    return [], read and {"users": read.user_embeddings, "items": read.item_embeddings}


CASES = {
    "heads": (heads, "ddp"),
    "retriever": (retriever, "ddp"),
    "text": (text, "ddp"),
    "retriever, weights of its layers learned": (functools.partial(retriever, aggregate="weighted"), "ddp"),
    "all weights": (llm, "ddp"),
    "lora": (functools.partial(llm, lora=ADAPTERS), "ddp"),
    "all weights, sharded": (llm, "fsdp"),
    "lora, sharded": (functools.partial(llm, lora=ADAPTERS), "fsdp"),
    "muon": (functools.partial(llm, muon_learning_rate=0.001), "ddp"),
    "muon, sharded": (functools.partial(llm, muon_learning_rate=0.001), "fsdp"),
    "recomputed, sharded": (functools.partial(llm, recompute=True), "fsdp"),
}


KILLED = ("heads", "retriever", "all weights", "all weights, sharded", "lora, sharded")
MOVED = "lora, sharded"
"""One process goes on with it."""


def _work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for name, (train, parallelism) in CASES.items():
        losses, weights = train(Workers(rank=rank, size=2, parallelism=parallelism))
        (folder / f"{name}.{rank}.json").write_text(json.dumps(losses))
        if rank == 0:
            save_file({key: tensor.clone() for key, tensor in weights.items()}, folder / f"{name}.safetensors")
    for name in KILLED:
        train, parallelism = CASES[name]
        workers, checkpoints = Workers(rank=rank, size=2, parallelism=parallelism), checkpoints_of(folder, name)
        with pytest.raises(InterruptedError):
            train(workers, checkpoints=checkpoints, kill=3)
        if name == MOVED:
            continue
        _, weights = train(workers, checkpoints=checkpoints)
        if rank == 0:
            save_file({key: tensor.clone() for key, tensor in weights.items()}, folder / f"{name}.resumed.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    mp.spawn(_work, args=(folder,), nprocs=2)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_workers_train_what_one_process_trains(of_two, name):
    train, _ = CASES[name]
    tolerance = BFLOAT16 if "muon" in name else 1e-4
    losses, weights = train(Workers())
    for rank in range(2):
        assert json.loads((of_two / f"{name}.{rank}.json").read_text()) == pytest.approx(losses, abs=tolerance)
    found = load_file(of_two / f"{name}.safetensors")
    assert found.keys() == weights.keys()
    for key, expected in weights.items():
        torch.testing.assert_close(found[key], expected, atol=tolerance, rtol=0, msg=f"{key} is another")


@pytest.mark.parametrize("name", [name for name in KILLED if name != MOVED])
def test_two_workers_go_on_from_their_checkpoint(of_two, name):
    found, expected = (load_file(of_two / f"{name}{part}.safetensors") for part in (".resumed", ""))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_one_process_goes_on_where_two_workers_were_killed(of_two):
    """Both adapters and their moments were in parts; the checkpoint has them whole."""
    losses, expected = llm(Workers(), lora=ADAPTERS)
    resumed, weights = llm(Workers(), lora=ADAPTERS, checkpoints=checkpoints_of(of_two, MOVED))
    assert resumed == pytest.approx(losses[2:], abs=1e-4)
    for key, tensor in expected.items():
        torch.testing.assert_close(weights[key], tensor, atol=1e-4, rtol=0)
