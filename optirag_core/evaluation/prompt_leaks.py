"""The leak rules of prompts, as checks of what the scored requests were shown: entries and means, before they are text.

Shapes: E shown entries, P shown profiles, n asked pairs.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.data.histories import Shown
from optirag_core.data.schema import PAIRS, REQUESTS
from optirag_core.evaluation.earlier import Earlier, before_of
from optirag_core.evaluation.leak_checks import Check, are_among, checked, of_splits
from optirag_core.prompting.builder import Context, Prompt, PromptBuilder

ASKING = [REQUESTS.field(name) for name in ("user_id", "as_of", "as_of_position")]
OWNER = [pa.field("owner", pa.string()), pa.field("similar", pa.bool_())]  # whose it is, and shown as a similar user's?
ENTRIES = pa.schema([*ASKING, *OWNER, PAIRS.field("item_id")])
"""A row per history entry that a prompt shows."""

PROFILES = pa.schema([*ASKING, *OWNER, pa.field("mean", pa.float64())])
"""A row per user that a prompt shows; null where it says no mean."""


def watched(builder: PromptBuilder) -> list[Context]:
    """What `builder` builds from now on, in order, as it was before too long prompts are cut: no less than is shown."""
    seen: list[Context] = []
    build = builder.build

    def watching(context: Context, candidates: Sequence[str]) -> Prompt:
        prompt = build(context, candidates)
        seen.append(context)
        return prompt

    builder.build = watching  # type: ignore[method-assign]  # the one that scoring uses, and not another one like it
    return seen


def shown_tables(contexts: Sequence[Context], requests: pa.Table) -> tuple[pa.Table, pa.Table]:
    """What prompts show, as tables.

    Args:
        contexts: of the requests that have a prompt.
        requests: `REQUESTS`, one per user.

    Returns:
        `ENTRIES` [E], `PROFILES` [P].
    """
    asked = {
        request["user_id"]: tuple(request.values())
        for request in requests.select([field.name for field in ASKING]).to_pylist()
    }
    entries: list[tuple[Any, ...]] = []
    profiles: list[tuple[Any, ...]] = []
    for context in contexts:
        asking = asked[context.user["user_id"]]
        for similar, profile, history in _shown(context):
            owner = (*asking, profile["user_id"], similar)
            profiles.append((*owner, profile["mean_stars"]))
            entries += [(*owner, entry.item_id) for entry in history]
    return _table(entries, ENTRIES), _table(profiles, PROFILES)


def check_prompts(entries: pa.Table, profiles: pa.Table, asked: pa.Table, interactions: pa.Table) -> list[Check]:
    """No prompt shows anything at or after its request, nor what is asked.

    Args:
        entries: `ENTRIES`.
        profiles: `PROFILES`.
        asked: user_id, item_id of all requests.
        interactions: `INTERACTIONS`.
    """
    own, similar = (entries.filter(mask) for mask in (pc.invert(entries["similar"]), entries["similar"]))
    owned = entries.select(["owner", "item_id"]).rename_columns(["user_id", "item_id"])
    similar_profiles = profiles.filter(profiles["similar"])
    train = of_splits(interactions, "train")
    return [
        _check_before("a user's own entry lies before the request", own, interactions),
        _check_before("a similar user's entry is a training interaction before the request", similar, train),
        checked("no asked pair is among the entries, the user's own or others'", entries, are_among(owned, asked)),
        checked(
            "a similar user is somebody else", similar_profiles,
            pc.equal(similar_profiles["owner"], similar_profiles["user_id"]).to_numpy(),
        ),
        _check_means(profiles, interactions),
    ]  # fmt: skip


def _check_before(name: str, entries: pa.Table, interactions: pa.Table) -> Check:
    """Entries that are none of the interactions, or not before the request, are wrong."""
    rows = interactions.select(["user_id", "item_id", "event_time", "position"]).rename_columns(
        ["owner", "item_id", "entry_time", "entry_position"]
    )
    found = entries.join(rows, ["owner", "item_id"], join_type="left outer")
    wrong = pc.is_null(found["entry_position"])
    late = pc.greater_equal(found["entry_time"], found["as_of"])
    after = pc.and_(pc.invert(found["similar"]), pc.greater_equal(found["entry_position"], found["as_of_position"]))
    for each in (late, after):  # null where the request has no such bound
        wrong = pc.or_(wrong, pc.fill_null(each, False))
    return checked(name, found, wrong.to_numpy())


def _check_means(profiles: pa.Table, interactions: pa.Table) -> Check:
    """A shown mean is that of the training ratings before the request."""
    earlier, timed = Earlier(of_splits(interactions, "train"), "user_id"), not interactions["event_time"].null_count
    own = ~profiles["similar"].to_numpy()
    before = np.where(own, *(before_of(profiles, timed, own=of_target) for of_target in (True, False)))
    counts, sums = earlier.sums(profiles["owner"], before)
    expected = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    wrong = ~np.isclose(pc.fill_null(profiles["mean"], np.nan).to_numpy(), expected, atol=1e-4, equal_nan=True)
    return checked("a shown mean of ratings is of training interactions before the request", profiles, wrong)


def _shown(context: Context) -> Iterator[tuple[bool, Mapping[str, Any], Sequence[Shown]]]:
    """Whether it is a similar user, profile and history of everybody in a prompt."""
    yield False, context.user, context.history
    for profile, history in context.similar:
        yield True, profile, history


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)
