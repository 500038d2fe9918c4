"""Traces on disk: one Parquet file, one row per pair."""

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from optirag_core.data.dataset import write_table
from optirag_core.engine.cost import ModelShape
from optirag_core.engine.trace import Trace
from optirag_core.errors import DataError

META = b"optirag_trace"
SCHEMA = pa.schema(
    [
        ("part", pa.int64()),  # the packed group
        ("prefix_tokens", pa.int32()),
        ("suffix_tokens", pa.int32()),
        ("logits", pa.list_(pa.float32())),  # exit layers x (m+1) x (yes, no)
        ("final_logits", pa.list_(pa.float32())),  # yes, no
    ]
)


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace for `read_trace`."""
    about = {
        "shape": asdict(trace.shape),
        "layers": trace.layers,
        "frozen_prefix_after": trace.frozen_prefix_after,
        "sizes": trace.sizes,
        "window": trace.logits.size(2) - 1,
    }
    columns = [
        trace.parts.numpy(),
        trace.prefix_tokens.numpy().astype("int32"),
        trace.suffix_tokens.numpy().astype("int32"),
        _lists(trace.logits),
        _lists(trace.final_logits),
    ]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    write_table(pa.table(arrays, schema=SCHEMA.with_metadata({META: json.dumps(about)})), path)


def read_trace(path: Path) -> Trace:
    """Read a trace.

    Raises:
        DataError: the file is no trace.
    """
    table = pq.read_table(path, page_checksum_verification=True)
    about = json.loads((table.schema.metadata or {}).get(META, b"null"))
    if about is None:
        raise DataError(f"{path} is no trace: write_trace makes them")
    parts, prefix_tokens, suffix_tokens = (
        torch.tensor(table[name].to_pylist(), dtype=torch.int64) for name in SCHEMA.names[:3]
    )
    logits = torch.tensor(table["logits"].to_pylist(), dtype=torch.float32)
    return Trace(
        ModelShape(**about["shape"]), tuple(about["layers"]), about["frozen_prefix_after"], tuple(about["sizes"]),
        parts, prefix_tokens, suffix_tokens, logits.reshape(-1, len(about["layers"]), about["window"] + 1, 2),
        torch.tensor(table["final_logits"].to_pylist(), dtype=torch.float32).reshape(-1, 2),
    )  # fmt: skip


def _lists(values: Tensor) -> list[list[float]]:
    return values.flatten(1).tolist()
