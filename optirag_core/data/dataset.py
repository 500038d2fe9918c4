"""The data set artifact: canonical tables, split, with everything a report must say about where they came from.

interactions.parquet, users.parquet, items.parquet, info.json       read by training and evaluation
history*.arrow, users.arrow, items.arrow                            mapped by whoever builds prompts
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from optirag_core.data.histories import Histories
from optirag_core.data.roles import Role, Roles
from optirag_core.data.rows import Rows

INFO_FILE = "info.json"
TABLES = ("interactions", "users", "items")


@dataclass(frozen=True)
class Dataset:
    """Labelled, ordered, split interactions with the profiles and items that prompts show."""

    interactions: pa.Table  # schema.INTERACTIONS
    users: pa.Table  # schema.USERS and profile columns
    items: pa.Table  # schema.ITEMS and template columns
    info: Mapping[str, Any]  # source, split method, order, counts, warnings

    def of_role(self, role: Role) -> pa.Table:
        """The interactions of the users that teach the LLM, the exit heads or the exit policy."""
        return Roles.from_info(self.info["roles"]).rows(self.interactions, role)

    def save(self, folder: Path) -> None:
        """Write all files into an existing local folder."""
        for name in TABLES:
            write_table(getattr(self, name), folder / f"{name}.parquet")
        Histories.of(self.interactions).save(folder)
        Rows.of(self.users, "user").save(folder)
        Rows.of(self.items, "item").save(folder)
        (folder / INFO_FILE).write_text(json.dumps(dict(self.info), indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Dataset":
        """Read a folder that `save` wrote; the artifact store has verified its files."""
        tables = {name: pq.read_table(folder / f"{name}.parquet") for name in TABLES}
        return cls(**tables, info=read_info(folder))


def read_info(folder: Path) -> dict[str, Any]:
    """`Dataset.info` of a folder that `save` wrote, without its tables."""
    return json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))


def write_table(table: pa.Table, path: Path) -> None:
    """Parquet with page checksums: without them most flipped bits go unseen."""
    pq.write_table(table, path, write_page_checksum=True)
