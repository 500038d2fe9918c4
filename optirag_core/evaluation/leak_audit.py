"""The leak rules checked on a finished workspace: how much was looked at, and how much of it is wrong.

What is checked is what the artifacts hold and what the scored requests are shown, by other code than that which made
them. Counts are of rows; nothing is raised, so that a report can open with them.

The retriever's artifact holds no edges: the graph is the one that the data set gives, and the GCN's vectors are
compared with the sums over its edges. Vectors of a factorization machine or of texts are no such sums.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from optirag_core.artifacts import Artifact
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import labelled_pairs
from optirag_core.engine.loading import load_tokenizer
from optirag_core.evaluation.leak_checks import (
    Check,
    check_evidence,
    check_evidence_moments,
    check_graph,
    check_learned,
    check_nodes,
    check_roles,
    check_splits,
    check_vectors,
    of_splits,
)
from optirag_core.evaluation.prompt_leaks import check_prompts, shown_tables, watched
from optirag_core.evidence.evidence import Evidence
from optirag_core.inference.opening import Artifacts
from optirag_core.inference.parts import open_assembler
from optirag_core.inference.requests import test_requests
from optirag_core.prompting.assembly import requests_from
from optirag_core.retrieval.fold_in import FoldIn
from optirag_core.retrieval.graph import BipartiteGraph, build_graph
from optirag_core.retrieval.vectors import load_fold_in, load_vectors

REQUESTS_AT_ONCE = 5_000
"""Some 375,000 shown entries."""


def audit(settings: Settings, artifacts: Artifacts) -> list[Check]:
    """Check the data set, what was learned from it, and the prompts of the test requests that the settings name.

    Args:
        artifacts: at least `inference.opening.TRAINED`; the exit features are opened beside them.

    Raises:
        ArtifactMissing, ArtifactMismatch: there are no exit features, or the exit heads were made from others.
    """
    dataset = Dataset.load(artifacts["dataset"].path)
    rows = dataset.interactions
    features = artifacts.workspace.open("exit_features")
    artifacts["exit_heads"].require_parent(features)
    requests = test_requests(dataset, settings.requests.max_users, settings.seed)
    return [
        *check_splits(rows, dataset.info["split_method"]),
        *check_retriever(artifacts["retriever"], rows),
        *_check_evidence(artifacts["evidence"], labelled_pairs(requests), rows),
        *_check_teaching(features, dataset),
        *_check_prompts(settings, artifacts, requests, rows),
    ]


def check_retriever(artifact: Artifact, interactions: pa.Table) -> list[Check]:
    """Graph, nodes and vectors of a `retriever` against the interactions of its data set."""
    graph = build_graph(interactions)
    (user_ids, vectors), (item_ids, _) = (load_vectors(artifact.path, noun) for noun in ("user", "item"))
    checks = [check_graph(_edges(graph), interactions), *check_nodes(user_ids, item_ids, interactions)]
    fold_in = load_fold_in(artifact.path)
    if fold_in is not None and artifact.manifest["config"]["retriever"]["method"] == "gcn":
        made = FoldIn(item_ids, fold_in).vector
        checks.append(check_vectors(user_ids.to_pylist(), vectors.numpy(), made, interactions))
    return checks


def _edges(graph: BipartiteGraph) -> pa.Table:
    users, items = (pa.array(index.numpy()) for index in (graph.user_index, graph.item_index))
    return pa.table({"user_id": graph.user_ids.take(users), "item_id": graph.item_ids.take(items)})


def _check_evidence(artifact: Artifact, asked: pa.Table, interactions: pa.Table) -> list[Check]:
    evidence = Evidence.open(artifact.path)
    return [*check_evidence(evidence, interactions), *check_evidence_moments(evidence, asked, interactions)]


def _check_teaching(features: Artifact, dataset: Dataset) -> list[Check]:
    """Who taught heads and policy lies in the features; the LLM's users are those that the data set gives it."""
    files = sorted(features.path.glob("*.parquet"))
    pairs = pa.concat_tables(pq.read_table(file, columns=["user_id", "item_id", "purpose"]) for file in files)
    taught = {role: pairs.filter(pc.equal(pairs["purpose"], role)) for role in ("heads", "policy")}
    of_llm = of_splits(dataset.of_role("llm"), "tune", "validation")
    users_of = {role: table["user_id"].to_pylist() for role, table in {"llm": of_llm, **taught}.items()}
    return [check_roles(users_of), check_learned(pa.concat_tables(taught.values()), dataset.interactions)]


def _check_prompts(settings: Settings, artifacts: Artifacts, requests: pa.Table, interactions: pa.Table) -> list[Check]:
    assembler, builder = open_assembler(settings, artifacts, load_tokenizer(artifacts["llm"].path))
    contexts, asked, parts = watched(builder), labelled_pairs(requests), []
    for start in range(0, max(1, len(requests)), REQUESTS_AT_ONCE):
        some = requests.slice(start, REQUESTS_AT_ONCE)
        contexts.clear()
        assembler.assemble(requests_from(some))
        parts.append(check_prompts(*shown_tables(contexts, some), asked, interactions))
    return [_added(same) for same in zip(*parts, strict=True)]


def _added(parts: Iterable[Check]) -> Check:
    """One rule over all parts."""
    checks = [*parts]
    return Check(
        checks[0].name,
        sum(each.checked for each in checks),
        sum(each.violations for each in checks),
        next((each.example for each in checks if each.example), None),
    )
