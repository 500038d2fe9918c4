"""Requests -> rows of prompts: Arrow, so that they travel between processes without being pickled."""

import pyarrow as pa

from optirag_core.data.schema import REJECTS, REQUESTS
from optirag_core.engine.groups import UserGroup
from optirag_core.prompting.assembly import PromptAssembler, requests_from

TOKENS = pa.list_(pa.int32())
ORIGIN = [REQUESTS.field(name) for name in ("user_id", "as_of", "as_of_position")]
PROMPTS = pa.schema(
    [
        *ORIGIN,
        ("prefix", TOKENS),
        ("suffixes", pa.list_(TOKENS)),
        ("evidence", pa.list_(pa.list_(pa.float32()))),  # n x [F] of the suffixes, standardised
        ("item_ids", pa.list_(pa.string())),  # of the suffixes
        ("rejects", pa.list_(pa.struct([REJECTS.field(name) for name in ("item_id", "error_code", "error")]))),
        ("num_similar_users", pa.int8()),
        ("cold_start", pa.bool_()),
        ("dropped_entries", pa.int32()),  # history entries left out of a prompt that was too long
        ("dropped_users", pa.int32()),  # similar users, likewise
    ]
)
"""One row per request."""


def assembled_prompts(assembler: PromptAssembler, requests: pa.Table) -> pa.Table:
    """Prompts of a table of requests.

    Args:
        requests: `REQUESTS`; all rows of a user are in one call.

    Returns:
        `PROMPTS`, a row per request, in order.
    """
    rows = []
    for origin, assembled in zip(
        requests.select([field.name for field in ORIGIN]).to_pylist(),
        assembler.assemble(requests_from(requests)),
        strict=True,
    ):
        prompt = assembled.prompt
        rows.append(
            origin
            | {
                "prefix": prompt.group.prefix if prompt else [],
                "suffixes": prompt.group.suffixes if prompt else [],
                "evidence": prompt.group.evidence if prompt else None,
                "item_ids": assembled.candidates,
                "rejects": [vars(reject) for reject in assembled.rejects],
                "num_similar_users": prompt.num_similar_users if prompt else 0,
                "cold_start": assembled.cold_start,
                "dropped_entries": prompt.num_dropped_entries if prompt else 0,
                "dropped_users": prompt.num_dropped_users if prompt else 0,
            }
        )
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def groups_of(prompts: pa.Table) -> list[UserGroup]:
    """What the scorer is asked: one group per row of `PROMPTS`."""
    columns = (prompts[name].to_pylist() for name in ("prefix", "suffixes", "evidence"))
    return [UserGroup(*group) for group in zip(*columns, strict=True)]
