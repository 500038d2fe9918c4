"""The bipartite graph of training interactions.

Shape legend: `U` users, `I` items, `N` nodes = U + I (users first), `E` training interactions.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import degree, to_torch_csr_tensor

from optirag_core.data.schema import INTERACTIONS, require_columns
from optirag_core.errors import DataError

EDGE_COLUMNS = pa.schema([INTERACTIONS.field(name) for name in ("user_id", "item_id", "split")])


@dataclass(frozen=True)
class BipartiteGraph:
    """Users and items as nodes, training interactions as edges.

    Attributes:
        user_ids: [U], sorted; every user has an edge.
        item_ids: [I], sorted; every item has an edge.
        user_index: [E] int64, row of `user_ids`; edges are sorted by (user, item).
        item_index: [E] int64, row of `item_ids`.
    """

    user_ids: pa.StringArray
    item_ids: pa.StringArray
    user_index: Tensor
    item_index: Tensor

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def num_nodes(self) -> int:
        return self.num_users + self.num_items

    @property
    def num_edges(self) -> int:
        return self.user_index.numel()

    @cached_property
    def item_degree(self) -> Tensor:
        """Training interactions of each item: [I] int64, the popularity."""
        return degree(self.item_index, self.num_items, dtype=torch.long)

    def edges_of(self, interactions: pa.Table) -> Tensor:
        """Look up interactions whose user and item are both nodes; the others are left out.

        Args:
            interactions: rows with user_id and item_id, of any split.

        Returns:
            [2, E'] int64: user row, item row, in the order of `interactions`.
        """
        users = _rows_of(interactions["user_id"], self.user_ids)
        items = _rows_of(interactions["item_id"], self.item_ids)
        edges = torch.stack([users, items])
        return edges[:, (edges >= 0).all(dim=0)]


def build_graph(interactions: pa.Table) -> BipartiteGraph:
    """Build the graph from the rows with split "train" only; all other rows are ignored.

    Every rating is an edge, liked or not. An edge set chosen by label would tell, for each training prompt, whether its
    target was liked.

    Source: arXiv:2501.02173v2, section 4; algorithm 1, line 1.

    Args:
        interactions: a table of `INTERACTIONS`, one row per (user, item).

    Raises:
        DataError: a column is missing, or no row has split "train".
    """
    rows = require_columns(interactions, EDGE_COLUMNS, "interactions")
    train = rows.filter(pc.equal(rows["split"], "train"))
    if train.num_rows == 0:
        raise DataError(
            f"interactions: none of {rows.num_rows:,} rows has split 'train', the graph needs at least one; "
            "check dataset.split and dataset.min_history"
        )
    user_ids, item_ids = _sorted_ids(train["user_id"]), _sorted_ids(train["item_id"])
    users, items = _rows_of(train["user_id"], user_ids), _rows_of(train["item_id"], item_ids)
    order = torch.argsort(users * len(item_ids) + items)  # the row order of the table must not matter
    return BipartiteGraph(user_ids, item_ids, users[order], items[order])


def normalized_adjacency(graph: BipartiteGraph) -> Tensor:
    """Symmetric-normalised adjacency D^-1/2 A D^-1/2 as a sparse CSR matrix: [N, N] float32, no self loops.

    CSR is the form that torch_geometric propagates fastest on CPU: 3 times faster per step than `edge_index` with the
    same weights (BookCrossing's explicit ratings, 3 layers of width 64, 2 cores).
    """
    users, items = graph.user_index, graph.item_index + graph.num_users
    edge_index = torch.stack([torch.cat([users, items]), torch.cat([items, users])])  # [2, 2E]
    with warnings.catch_warnings(), torch.sparse.check_sparse_tensor_invariants(enable=True):
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        adjacency = to_torch_csr_tensor(edge_index, size=(graph.num_nodes, graph.num_nodes))
        normalized, _ = gcn_norm(adjacency, None, graph.num_nodes, add_self_loops=False, dtype=torch.float32)
    return normalized


def _sorted_ids(column: pa.ChunkedArray) -> pa.StringArray:
    unique = pc.unique(column)
    return unique.take(pc.sort_indices(unique))


def _rows_of(column: pa.ChunkedArray, ids: pa.StringArray) -> Tensor:
    rows = pc.fill_null(pc.index_in(column.cast(pa.string()), value_set=ids), -1)
    return torch.from_numpy(rows.to_numpy(zero_copy_only=False).astype("int64"))
