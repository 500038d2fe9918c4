"""Which types of columns hold ids: text or whole numbers, in a user's own tables and in requests alike.

A float would turn 7 into "7.0", another user; pandas makes floats of whole numbers where one of them is missing.
"""

from collections.abc import Callable, Mapping

import pyarrow as pa
from pyarrow import types

EXPECTED = "strings or whole numbers: cast them (in pandas astype('Int64')) and write the table again"


def is_id(came: pa.DataType) -> bool:
    """Whether values of this type are ids as they stand: text, whole numbers, a dictionary of either, or only nulls."""
    if types.is_dictionary(came):
        return is_id(came.value_type)
    checks = (
        types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary,
        types.is_binary_view, types.is_integer, types.is_null,
    )  # fmt: skip
    return any(check(came) for check in checks)


def is_id_list(came: pa.DataType) -> bool:
    """Whether values of this type are lists of ids, or only nulls."""
    lists = types.is_list(came) or types.is_large_list(came) or types.is_fixed_size_list(came)
    return types.is_null(came) or (lists and is_id(came.value_type))


ID_COLUMNS: Mapping[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "user_id": (is_id, EXPECTED),
    "item_id": (is_id, EXPECTED),
    "item_ids": (is_id_list, f"lists of {EXPECTED}"),
}
"""Column -> whether its type fits, and what a message expects."""
