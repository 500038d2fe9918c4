"""A stored trace is the trace."""

from dataclasses import fields

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from optirag_core.engine.cost import ModelShape
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.trace import Trace, replay
from optirag_core.errors import DataError
from optirag_core.evaluation.traces import read_trace, write_trace


def random_trace(sizes: tuple[int, ...]) -> Trace:
    generator, pairs = torch.Generator().manual_seed(0), sum(sizes)
    parts = torch.tensor([part for part, size in enumerate(sizes) for _ in range(size)], dtype=torch.int64)
    logits = torch.randn(pairs, 2, 4, 2, generator=generator)
    final = torch.randn(pairs, 2, generator=generator)
    lengths = torch.full((pairs,), 30), torch.arange(1, pairs + 1)
    return Trace(ModelShape(7, 32, 48, 32, 16), (3, 5), None, sizes, parts, *lengths, logits, final)


@pytest.mark.parametrize("sizes", [(3, 0, 2), (0,), ()])
def test_a_trace_survives_the_disk(tmp_path, sizes):
    trace = random_trace(sizes)

    write_trace(trace, tmp_path / "trace.parquet")
    loaded = read_trace(tmp_path / "trace.parquet")

    for field in fields(Trace):
        mine, other = getattr(trace, field.name), getattr(loaded, field.name)
        assert torch.equal(mine, other) if isinstance(mine, torch.Tensor) else mine == other
    policy = ExitPolicy("probability", 2, 0.1)
    assert replay(loaded, policy) == replay(trace, policy)


def test_another_parquet_file_is_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")

    with pytest.raises(DataError, match="is no trace"):
        read_trace(tmp_path / "other.parquet")
