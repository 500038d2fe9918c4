"""The tables that flow through OptiRAG: names of files and columns, Arrow schemas, and their checks.

Column names are written here and nowhere else; `users` and `items` may carry any further columns for the template.
"""

import pyarrow as pa

from optirag_core.data.ids import ID_COLUMNS
from optirag_core.errors import DataError

TIMESTAMP = pa.timestamp("us", tz="UTC")

RATINGS = pa.schema(
    [("user_id", pa.string()), ("item_id", pa.string()), ("rating", pa.float32()), ("event_time", TIMESTAMP)]
)
"""What a loader returns: raw interactions, in file order; `event_time` null where the publisher gives none."""

ARRIVAL = pa.field("arrival", pa.int64())
"""Ratings may have it: the place in the event log, null of the publisher's own, which come before all events."""

INTERACTIONS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("rating", pa.float32()),
        ("label", pa.int8()),  # 1 liked, 0 not liked
        ("event_time", TIMESTAMP),
        ("position", pa.int32()),  # order within the user, from 0
        ("split", pa.string()),  # one of SPLITS
    ]
)
"""Labelled, ordered, deduplicated interactions, sorted by (user_id, position)."""

SPLITS = ("train", "tune", "validation", "test")
"""train builds the graph, the index and the floors; tune holds the targets of the LLM and the exit heads and
stays out of the graph."""

USERS = pa.schema([("user_id", pa.string())])
ITEMS = pa.schema([("item_id", pa.string()), ("title", pa.string())])

REQUESTS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("as_of", TIMESTAMP),  # nothing at or after it is shown; null: all that is known
        ("as_of_position", pa.int32()),  # the same in the user's own order; with times it means that row's time
    ]
)
"""One row per user: the candidates to score."""

PAIRS = pa.schema(
    [("user_id", pa.string()), ("item_id", pa.string()), REQUESTS.field("as_of"), REQUESTS.field("as_of_position")]
)
"""The same with one row per candidate."""

SCORES = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("score", pa.float32()),  # p(yes) in [0, 1]
        ("exit_layer", pa.int16()),  # 1-based; the number of layers when no head stopped it, 0 on its evidence alone
        ("num_similar_users", pa.int8()),
        ("cold_start", pa.bool_()),
        ("run_id", pa.string()),
        ("model_version", pa.string()),
        ("scored_at", TIMESTAMP),
    ]
)

REJECTS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("as_of", TIMESTAMP),
        ("as_of_position", pa.int32()),
        ("error_code", pa.string()),
        ("error", pa.string()),
    ]
)


def require_columns(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """Cast the schema's columns of `table`, keep further columns behind them.

    Raises:
        DataError: a column is missing or cannot be cast, or ids are neither text nor whole numbers; it is named.
    """
    missing = [field.name for field in schema if field.name not in table.column_names]
    if missing:
        raise DataError(f"{name}: column {missing[0]!r} is missing; it has {', '.join(table.column_names) or 'none'}")
    columns = {}
    for field in schema:
        came = table.schema.field(field.name).type
        fits, expected = ID_COLUMNS.get(field.name, (None, None))
        if fits and not fits(came):
            raise DataError(f"{name}: column {field.name!r} is {came}, expected {expected}")
        try:
            columns[field.name] = table[field.name].cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(f"{name}: column {field.name!r} is {came}, expected {field.type}") from None
    extra = {name: table[name] for name in table.column_names if name not in columns}
    return pa.table({**columns, **extra})
