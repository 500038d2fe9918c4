"""Shares by hand, and tensors that leave a worker on the device that its backend takes."""

import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import optirag_core
from optirag_core.training.workers import Workers

TRAINING = Path(optirag_core.__file__).parent / "training"


@pytest.mark.parametrize(
    ("batch", "shares"),
    [
        ("abcde", [("ace", 1.0), ("bd", 1.0)]),
        ("a", [("a", 1.0), ("a", 0.0)]),  # the second computes along, and counts nothing
    ],
)
def test_shares_by_hand(batch, shares):
    assert [Workers(rank=rank, size=2).share(batch) for rank in range(2)] == shares
    assert Workers().share(batch) == (batch, 1.0)


def test_one_worker_alone_needs_no_group():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    total = Workers().sum(values)
    assert torch.equal(total, values)
    assert not total.requires_grad


def test_sums_are_handed_over_on_the_worker_s_device(monkeypatch):
    """NCCL takes no tensor of the CPU: metrics are made there, and added up on the GPU."""
    handed = []
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: handed.append(tensor.device.type))
    Workers(size=2, device=torch.device("meta")).sum(torch.ones(2))
    assert handed == ["meta"]


def test_nothing_else_calls_a_collective():
    """What is handed over is moved in one place; what torch exchanges by itself lies on the module's device."""
    collective = re.compile(r"\b(all_reduce|all_gather|reduce_scatter|broadcast|barrier|gather_object)\w*\(")
    calling = [path.name for path in TRAINING.glob("*.py") if collective.search(path.read_text(encoding="utf-8"))]
    assert calling == ["workers.py"]
