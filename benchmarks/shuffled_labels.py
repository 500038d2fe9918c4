"""The demo's data with its ratings dealt out at random, as tables: a run that finds an order in them has a leak.

    python -m benchmarks.shuffled_labels --out TABLES
    python -m benchmarks.pipeline --out benchmarks/results/shuffled-labels.json -- \\
        --config ray_jobs/configs/demo.yaml --dataset.source tables --data TABLES --workspace NEW_DIR
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from optirag_core.artifacts import scratch_folder
from optirag_core.config_file import load_settings
from optirag_core.data.loading import load_raw
from optirag_core.data.synthetic import write_synthetic

DEMO = Path("ray_jobs/configs/demo.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    write_shuffled(parser.parse_args().out)


def write_shuffled(folder: Path) -> None:
    """Users, items and who rated what stay as they are."""
    settings = load_settings(DEMO)
    with scratch_folder() as scratch:
        write_synthetic(scratch, settings.dataset.synthetic, seed=settings.seed)
        raw = load_raw(settings.dataset, folder=scratch)
    dealt = np.random.default_rng(settings.seed).permutation(raw.ratings["rating"].to_numpy())
    place = raw.ratings.column_names.index("rating")
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(raw.ratings.set_column(place, "rating", [dealt]), folder / "interactions.parquet")
    pq.write_table(raw.users, folder / "users.parquet")
    pq.write_table(raw.items, folder / "items.parquet")


if __name__ == "__main__":
    main()
