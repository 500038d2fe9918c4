"""Raw files of any supported publisher -> tables."""

from pathlib import Path

from optirag_core.config.data import DatasetSettings
from optirag_core.data.amazon import load_amazon
from optirag_core.data.bookcrossing import load_bookcrossing
from optirag_core.data.raw_dataset import RawDataset
from optirag_core.data.tables import load_tables
from optirag_core.data.yelp import load_yelp

LOADERS = {
    "synthetic": load_bookcrossing,  # the generator writes that format
    "bookcrossing": load_bookcrossing,
    "amazon": load_amazon,
    "yelp": load_yelp,
    "tables": load_tables,
}


def load_raw(settings: DatasetSettings, *, folder: Path) -> RawDataset:
    """Read the data set `settings.source` from `folder`.

    Raises:
        DataError: a file is missing or cannot be used.
        MalformedLines: too many lines of a file are malformed.
    """
    return LOADERS[settings.source](folder, settings)
