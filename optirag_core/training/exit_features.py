"""Hidden states of the frozen LLM at labelled pairs: what exit heads and exit policies learn from, computed once.

Each part reads its own users' rows: `heads` and `policy` (`data.roles`), and `test`, which evaluation alone reads.

Shapes: R pairs, K layers, D model width, F evidence features.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from optirag_core.data.dataset import Dataset, write_table
from optirag_core.data.schema import REQUESTS
from optirag_core.data.splits import requests_for
from optirag_core.data.spread import spread
from optirag_core.engine.cost import ModelShape
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.scorer import Scorer
from optirag_core.engine.states import LastStates
from optirag_core.engine.trace import Trace
from optirag_core.inference.prompts import PROMPTS, assembled_prompts, groups_of
from optirag_core.prompting.assembly import PromptAssembler
from optirag_core.training.samples import answers_to

Purpose = Literal["heads", "policy", "test"]

ASKED_FOR = [pa.field("purpose", pa.string()), pa.field("split", pa.string()), pa.field("request", pa.int32())]
LABELS = pa.field("labels", pa.list_(pa.int8()))
LABELLED_REQUESTS = pa.schema([*REQUESTS, LABELS, *ASKED_FOR])
"""Requests with the answers to their candidates, what they are for, and a number for each."""

LABELLED_PROMPTS = pa.schema([*PROMPTS, LABELS, *ASKED_FOR])
"""Prompts with the answers to the candidates that fit."""

FEATURES = [
    pa.field("user_id", pa.string()),
    pa.field("item_id", pa.string()),
    pa.field("label", pa.int8()),
    *ASKED_FOR,
    pa.field("parts", pa.int32()),  # the packed group that the pair was in
    pa.field("prefix_tokens", pa.int32()),
    pa.field("suffix_tokens", pa.int32()),
    pa.field("frozen_prefix_after", pa.int32()),  # 0: the prefix went all the way
]
"""Columns of features; behind them `evidence` [F], where there is any, and hidden states `layer_5` ... [D].

A request's rows are neighbours."""

SHAPE_FILE = "shape.json"
"""Shape of the LLM."""

PACKING = ("parts", "prefix_tokens", "suffix_tokens")
EVIDENCE, LAYER = "evidence", "layer_"


@dataclass(frozen=True)
class ExitFeatures:
    """Labelled pairs as the frozen LLM sees them."""

    users: np.ndarray  # [R] user ids
    items: np.ndarray  # [R] item ids
    labels: Tensor  # [R] float32, 1 liked
    evidence: Tensor | None  # [R, F] standardised
    states: LastStates

    def at(self, layer: int) -> Tensor:
        """h^(layer) of every pair, [R, D]."""
        return self.states.at([layer])[:, 0]


def labelled_requests(dataset: Dataset, test: pa.Table, max_users: int | None) -> pa.Table:
    """The requests whose answers the heads learn from, the policy is chosen on, and evaluation looks at.

    Args:
        test: requests of the test split with their `labels`.
        max_users: of each role and split, at most this many users, spread evenly over the table.

    Returns:
        `LABELLED_REQUESTS`.
    """
    heads, policy = dataset.of_role("heads"), dataset.of_role("policy")
    parts = [
        ("test", "test", test),
        ("heads", "tune", requests_for(heads, "tune")),
        ("heads", "validation", requests_for(heads, "validation")),
        ("policy", "validation", requests_for(policy, "validation")),  # like the requests that it is for
    ]
    tables = []
    for purpose, split, requests in parts:
        if purpose != "test":
            requests = spread(requests, max_users)
        requests = requests.append_column(ASKED_FOR[0], pa.repeat(purpose, len(requests)))
        tables.append(requests.append_column(ASKED_FOR[1], pa.repeat(split, len(requests))))
    table = pa.concat_tables(tables)
    return table.append_column(ASKED_FOR[2], pa.array(range(len(table)), pa.int32())).cast(LABELLED_REQUESTS)


def labelled_prompts(assembler: PromptAssembler, requests: pa.Table) -> pa.Table:
    """Prompts of some requests with the answers to their candidates.

    Args:
        requests: `LABELLED_REQUESTS`.

    Returns:
        `LABELLED_PROMPTS`.
    """
    prompts = assembled_prompts(assembler, requests)
    labels = []
    for request, candidates in zip(
        requests.select(["item_ids", "labels"]).to_pylist(), prompts["item_ids"].to_pylist(), strict=True
    ):
        labels.append(answers_to(candidates, request["item_ids"], request["labels"]))
    prompts = prompts.append_column(LABELS, pa.array(labels, LABELS.type))
    for field in ASKED_FOR:
        prompts = prompts.append_column(field, requests[field.name])
    return prompts


def features_of(scorer: Scorer, prompts: pa.Table, layers: Sequence[int]) -> pa.Table:
    """One full-depth pass over some prompts.

    Args:
        prompts: `LABELLED_PROMPTS`.
        layers: 1-based.

    Returns:
        `FEATURES` and a column per layer, a row per pair.
    """
    groups = groups_of(prompts)
    states = scorer.states(groups, layers)
    of_pair = np.repeat(np.arange(len(groups)), [len(group.suffixes) for group in groups])
    columns = {name: prompts[name].take(of_pair) for name in ("user_id", *(field.name for field in ASKED_FOR))}
    columns |= {"item_id": pc.list_flatten(prompts["item_ids"]), "label": pc.list_flatten(prompts["labels"])}
    columns |= {name: pa.array(getattr(states, name).numpy(), pa.int32()) for name in PACKING}
    columns["frozen_prefix_after"] = pa.repeat(scorer.policy.frozen_prefix_after or 0, len(of_pair)).cast(pa.int32())
    table = pa.table([columns[field.name] for field in FEATURES], schema=pa.schema(FEATURES))
    evidence = [row for group in groups for row in group.evidence or ()]  # [R, F], or nothing
    if evidence:
        table = table.append_column(EVIDENCE, _vectors(torch.tensor(evidence)))
    for column, layer in enumerate(layers):
        table = table.append_column(f"{LAYER}{layer}", _vectors(states.states[:, column]))
    return table


def save_features(tables: Iterable[tuple[int, pa.Table]], shape: ModelShape, folder: Path) -> int:
    """Write a file per numbered table, for `read_features`; returns the number of pairs."""
    (folder / SHAPE_FILE).write_text(json.dumps(asdict(shape)), encoding="utf-8")
    num_pairs = 0
    for number, table in tables:
        write_table(table, folder / f"{number:05d}.parquet")
        num_pairs += len(table)
    return num_pairs


def read_features(
    folder: Path, purpose: Purpose, split: str | None = None, *, frozen_prefix_after: int | None = None
) -> ExitFeatures:
    """The pairs of one purpose, or of one split of it; there may be none.

    Args:
        frozen_prefix_after: of the pass; other than None the policy's users alone have one.
    """
    wanted: list[tuple[str, str, str | int]] = [("purpose", "=", purpose)]
    wanted += [("frozen_prefix_after", "=", frozen_prefix_after or 0)]
    wanted += [("split", "=", split)] if split else []
    tables = [pq.read_table(file, filters=wanted) for file in sorted(folder.glob("*.parquet"))]
    shape = ModelShape(**json.loads((folder / SHAPE_FILE).read_text(encoding="utf-8")))
    return _features(pa.concat_tables(tables).combine_chunks(), shape, frozen_prefix_after)


def read_traces(
    folder: Path, heads: ExitHeads, window: int, frozen_prefixes: Sequence[int]
) -> tuple[ExitFeatures, dict[int | None, Trace]]:
    """What these heads make of the policy's users, by `frozen_prefix_after`; the features are those of None."""
    by_frozen, traces = {}, {}
    for frozen in (None, *frozen_prefixes):
        features = by_frozen[frozen] = read_features(folder, "policy", frozen_prefix_after=frozen)
        evidence = features.evidence if heads.num_features else None
        traces[frozen] = Trace.of_states(features.states, heads, evidence, window=window)
    return by_frozen[None], traces


def _features(table: pa.Table, shape: ModelShape, frozen_prefix_after: int | None) -> ExitFeatures:
    layers = [int(name.removeprefix(LAYER)) for name in table.column_names if name.startswith(LAYER)]
    states = [_matrix(table[f"{LAYER}{layer}"]) for layer in layers]
    request, part, prefix, suffix = (
        torch.from_numpy(table[name].to_numpy().copy()).long() for name in ("request", *PACKING)
    )
    _, sizes = request.unique_consecutive(return_counts=True)
    _, parts = torch.stack([request, part]).unique(dim=1, return_inverse=True)  # a part's number is its file's
    packed = LastStates(
        states=torch.stack(states, dim=1), layers=tuple(layers), parts=parts, prefix_tokens=prefix,
        suffix_tokens=suffix, sizes=tuple(sizes.tolist()), shape=shape, frozen_prefix_after=frozen_prefix_after,
    )  # fmt: skip
    return ExitFeatures(
        users=table["user_id"].to_numpy(),
        items=table["item_id"].to_numpy(),
        labels=torch.from_numpy(table["label"].to_numpy().astype(np.float32)),
        evidence=_matrix(table[EVIDENCE]) if EVIDENCE in table.column_names else None,
        states=packed,
    )


def _vectors(rows: Tensor) -> pa.FixedSizeListArray:
    """[R, width] -> a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.flatten().numpy()), rows.size(-1))


def _matrix(column: pa.ChunkedArray) -> Tensor:
    """A column -> [R, width]."""
    return torch.tensor(column.combine_chunks().flatten().to_numpy()).view(len(column), column.type.list_size)
