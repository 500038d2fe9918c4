"""The paper's own figures (arXiv:2501.02173v2, tables 2 to 5 and 9), which stand in grey beside ours.

They are of Vicuna-7B on an A100, of an unstated split and of other samples: nothing here is measured against them.
"""

from collections.abc import Mapping
from typing import NamedTuple

from optirag_core.config.data import DatasetSettings

COLUMNS = ("BookCrossing", "Beauty", "Video Games", "Movies and TV", "Yelp")


class Printed(NamedTuple):
    """One cell: AUC in [0, 1], and log loss in nats or requests per second."""

    auc: float
    other: float


def column_of(dataset: DatasetSettings) -> str | None:
    """The paper's name of a data set; None where it has another one."""
    if dataset.source == "amazon":
        named = {"All_Beauty": "Beauty", "Video_Games": "Video Games", "Movies_and_TV": "Movies and TV"}
        return named.get(str(dataset.category))
    return {"bookcrossing": "BookCrossing", "yelp": "Yelp"}.get(dataset.source)


def printed(table: str, column: str | None) -> Mapping[str, Printed]:
    """Row -> its cell; empty for a data set or a table that the paper does not have."""
    if column is None:
        return {}
    place = 2 * COLUMNS.index(column)
    return {row: Printed(cells[place] / 100, cells[place + 1]) for row, cells in TABLES.get(table, {}).items()}


TABLES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "table2": {
        "DeepFM": (71.15, 0.6897, 66.67, 0.539, 57.68, 0.5916, 80.33, 0.3884, 83.15, 0.4279),
        "DIN": (71.17, 0.6525, 69.93, 0.5727, 62.96, 0.7477, 74.88, 0.5210, 71.59, 0.7481),
        "GRU4Rec": (60.75, 2.1302, 64.82, 0.6195, 58.26, 0.9163, 70.64, 0.5830, 63.15, 0.9439),
        "AutoInt": (58.00, 0.6859, 70.53, 0.3899, 63.59, 0.8760, 79.98, 0.3902, 83.02, 0.4285),
        "DCNv2": (58.52, 0.6758, 69.37, 0.5254, 67.89, 0.5502, 79.53, 0.3968, 83.21, 0.4264),
        "WuKong": (58.06, 0.6798, 65.64, 0.3327, 66.22, 0.5926, 77.36, 0.4274, 83.23, 0.4261),
        "GDCN": (58.03, 0.6750, 68.51, 0.3587, 66.27, 0.7024, 80.19, 0.3922, 83.08, 0.4278),
        "EulerNet": (57.86, 0.7103, 67.78, 0.3212, 64.14, 0.8886, 79.19, 0.3931, 82.97, 0.4273),
        "TALLRec": (70.74, 0.6306, 90.37, 0.2459, 75.41, 0.4754, 71.14, 0.4514, 77.38, 0.4792),
        "LLM-retriever": (70.86, 0.6907, 89.65, 0.2394, 75.76, 0.4805, 73.89, 0.7951, 80.32, 0.4577),
        "GCN-retriever": (72.83, 0.6158, 94.72, 0.2216, 78.03, 0.4850, 90.34, 0.4081, 81.50, 0.4692),
        "OptiRAG-Rec": (82.11, 0.5269, 96.37, 0.2053, 97.86, 0.1911, 98.46, 0.3010, 95.28, 0.2460),
    },
    "table3": {
        "mean": (72.83, 0.6158, 94.72, 0.2216, 78.03, 0.4850, 90.34, 0.3850, 81.50, 0.4692),
        "last": (69.45, 0.7151, 93.55, 0.3774, 70.88, 0.5461, 91.78, 0.4062, 80.95, 0.4654),
        "weighted": (73.05, 0.6293, 93.64, 0.3012, 72.48, 0.6573, 89.86, 0.4442, 81.38, 0.4935),
    },
    "table4": {  # requests per second
        "neither": (70.74, 15.765, 90.37, 15.098, 75.41, 8.879, 71.14, 7.585, 77.38, 11.486),
        "retriever only": (78.03, 3.825, 94.72, 4.781, 78.03, 3.825, 90.34, 3.674, 80.34, 3.821),
        "early exit only": (75.98, 11.313, 92.56, 20.318, 96.37, 7.917, 97.40, 7.034, 79.00, 8.216),
        "retriever and single-head exit": (81.14, 7.191, 94.50, 4.680, 96.13, 4.814, 98.46, 4.977, 95.76, 4.065),
        "both (OptiRAG-Rec)": (82.11, 5.505, 96.37, 4.960, 97.86, 4.932, 98.46, 5.080, 95.28, 3.838),
    },
    "table5": {
        "GCN-retriever": (72.83, 0.6158, 94.72, 0.2216, 78.03, 0.4850, 90.34, 0.4081, 81.50, 0.4692),
        "FM-retriever": (69.33, 0.6409, 88.03, 0.6263, 67.82, 0.7443, 73.17, 0.6260, 74.01, 0.5484),
    },
    "table9": {
        "GCN-retriever": (72.83, 0.6158, 94.72, 0.2216, 78.03, 0.4850, 90.34, 0.4081, 81.50, 0.4692),
        "OptiRAG-Rec": (82.11, 0.5269, 96.37, 0.2053, 97.86, 0.1911, 98.46, 0.1911, 95.28, 0.2460),
        "SparseGPT": (66.84, 0.6632, 92.78, 0.2631, 69.59, 0.6348, 90.61, 0.3854, 77.48, 0.3854),
        "smaller LLM": (52.81, 0.8754, 66.61, 0.3699, 54.71, 0.5534, 78.86, 0.4458, 50.70, 0.4456),
    },
}  # fmt: skip
"""Per data set of `COLUMNS`: AUC in percent, and log loss; in table 4 requests per second. Table 4's "retriever only"
row of BookCrossing repeats that of Video Games."""
