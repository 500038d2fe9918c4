"""A training that was killed goes on from its checkpoint and ends as the undisturbed one, bit for bit."""

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from optirag_core.artifacts import Workspace
from optirag_core.config.data import RetrieverSettings
from optirag_core.config.exits import ExitHeadsSettings
from optirag_core.config.llm import LoraSettings, TuningSettings
from optirag_core.engine.heads import ExitHeads
from optirag_core.errors import StorageError
from optirag_core.retrieval.graph import build_graph
from optirag_core.training import checkpoints as checkpoints_module
from optirag_core.training import state
from optirag_core.training.checkpoints import Checkpoints
from optirag_core.training.exit_heads import HeadSamples, train_exit_heads
from optirag_core.training.llm import tune_llm
from optirag_core.training.retriever import train_retriever
from tests.conftest import tiny_llama
from tests.retrieval.reference_retrieval import interactions

from .conftest import ANSWERS, random_samples

TUNING = TuningSettings(batch_tokens=80, epochs=2, learning_rate=3e-3, history_loss_weight=0.5, select_epoch=True)
ADAPTERS = LoraSettings(rank=4, alpha=8, dropout=0.2, modules=("q_proj", "v_proj"))


class Killed(Exception):
    """Ends a training in the middle, as SIGKILL would: nothing else of it runs."""


def killed_at(number, seen):
    def on_step(done):
        seen.append(done)
        if len(seen) == number:
            raise Killed

    return on_step


def all_weights(checkpoints, on_step, **changes):
    tuned = tune_llm(
        tiny_llama(tie_word_embeddings=True), random_samples(20), ANSWERS, TUNING.model_copy(update=changes), seed=0,
        validation=random_samples(7, seed=1), checkpoints=checkpoints, on_step=on_step,
    )  # fmt: skip
    return {**tuned.llm.state_dict(), "losses": torch.tensor([epoch["validation_loss"] for epoch in tuned.epochs])}


def muon(checkpoints, on_step):
    return all_weights(checkpoints, on_step, muon_learning_rate=0.01)


def lora(checkpoints, on_step):
    """With dropout: its random numbers are those of the step, not of the process."""
    return tune_llm(
        tiny_llama(tie_word_embeddings=True), random_samples(20), ANSWERS, TUNING, seed=0, lora=ADAPTERS,
        checkpoints=checkpoints, on_step=on_step,
    ).llm.state_dict()  # fmt: skip


def heads(checkpoints, on_step):
    generator = torch.Generator().manual_seed(0)
    states = {layer: torch.randn(50, 32, generator=generator) for layer in (2, 3, 4)}
    answers = HeadSamples(states, None, torch.randint(0, 2, (50,), generator=generator).float())
    trained = ExitHeads(tiny_llama(), (2, 3), ANSWERS)
    train_exit_heads(
        trained, answers.take(slice(40)), ExitHeadsSettings(layers=(2, 3), learning_rate=0.01, epochs=9, batch_size=16),
        seed=0, validation=answers.take(slice(40, 50)), checkpoints=checkpoints, on_epoch=lambda *epoch: on_step(epoch),
    )  # fmt: skip
    return trained.state_dict()


def retriever(checkpoints, on_step):
    rows = [(f"u{user:02}", f"i{(user * step + step) % 16:02}") for user in range(24) for step in (1, 2, 3, 5)]
    held_out = interactions(*((f"u{user:02}", f"i{(user + 7) % 16:02}") for user in range(24)), split="validation")
    settings = RetrieverSettings(embedding_dim=8, batch_size=30, max_epochs=9, patience=2, learning_rate=0.05)
    graph = build_graph(interactions(*dict.fromkeys(rows)))
    trained = train_retriever(
        graph, held_out, settings, seed=0, checkpoints=checkpoints, on_epoch=lambda *epoch: on_step(epoch)
    )
    return {"users": trained.user_embeddings, "losses": torch.tensor([list(each.values()) for each in trained.history])}


def checkpoints_of(folder, every_s=0.0):
    return Checkpoints(Workspace(str(folder)), ".training/kind-0123", every_s=every_s)


@pytest.mark.parametrize("train", [all_weights, muon, lora, heads, retriever])
def test_a_killed_training_ends_as_the_undisturbed_one(train, tmp_path):
    steps, killed, resumed = [], [], []
    undisturbed = train(None, steps.append)
    for number in (3, 2):  # killed twice
        with pytest.raises(Killed):
            train(checkpoints_of(tmp_path), killed_at(number, killed if number == 3 else resumed))
    weights = train(checkpoints_of(tmp_path), resumed.append)
    # A step is saved once its callback is done: the two that were killed in theirs are taken again.
    assert [*killed[:-1], resumed[0], *resumed[2:]] == steps
    assert weights.keys() == undisturbed.keys()
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)


def test_one_checkpoint_stays_and_holds_only_what_learns(tmp_path):
    lora(checkpoints_of(tmp_path), lambda _: None)
    [folder] = (tmp_path / ".training").iterdir()
    [version] = (each for each in folder.iterdir() if each.is_dir())
    names = load_file(version / "weights.safetensors").keys()
    assert names
    assert all("lora_" in name for name in names)  # frozen weights are not in it


def test_checkpoints_are_not_due_before_their_time(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(checkpoints_module.time, "monotonic", lambda: now)
    checkpoints = checkpoints_of(tmp_path, every_s=60.0)
    assert not checkpoints.due
    now = 160.0
    assert checkpoints.due
    lora(checkpoints, lambda _: None)
    assert not checkpoints.due


def test_a_damaged_checkpoint_is_named_and_training_starts_anew(tmp_path, caplog):
    undisturbed, seen = lora(None, lambda _: None), []
    with pytest.raises(Killed):
        lora(checkpoints_of(tmp_path), killed_at(3, []))
    [file] = tmp_path.rglob("optimizer.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    weights = lora(checkpoints_of(tmp_path), seen.append)
    assert seen[0].number == 1
    assert "training starts anew" in caplog.text
    assert "optimizer.safetensors" in caplog.text
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)


def test_a_full_workspace_ends_the_training_and_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    undisturbed, saved, resumed = lora(None, lambda _: None), [], []
    publish = Workspace.publish

    def full(self, kind, version, *args, **kwargs):
        saved.append(version)
        if len(saved) == 3:
            raise StorageError("no space left")
        return publish(self, kind, version, *args, **kwargs)

    monkeypatch.setattr(Workspace, "publish", full)
    with pytest.raises(StorageError, match="no space left"):
        lora(checkpoints_of(tmp_path), lambda _: None)
    monkeypatch.undo()
    weights = lora(checkpoints_of(tmp_path), resumed.append)
    assert resumed[0].number == 3
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)


@pytest.mark.s3
def test_a_bucket_keeps_it_too(s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # it is read once per process
    undisturbed, resumed = lora(None, lambda _: None), []
    with pytest.raises(Killed):
        lora(checkpoints_of(s3_bucket), killed_at(3, []))
    weights = lora(checkpoints_of(s3_bucket), resumed.append)
    assert resumed[0].number == 3
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)


def test_a_checkpoint_of_another_model_is_not_taken(tmp_path, caplog):
    with pytest.raises(Killed):
        lora(checkpoints_of(tmp_path), killed_at(3, []))
    seen = []
    all_weights(checkpoints_of(tmp_path), seen.append)
    assert seen[0].number == 1
    assert "training starts anew" in caplog.text


def test_no_room_for_its_files_is_a_clear_error(tmp_path, monkeypatch):
    def full(tensors, path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(StorageError, match=r"a checkpoint cannot be written: .* No space left"):
        lora(checkpoints_of(tmp_path), lambda _: None)
