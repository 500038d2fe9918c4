"""Small batches, written as lists."""

import torch

from optirag_core.baselines.batch import Batch


def batch(fields, histories=None, *, max_history=3):
    """`histories`: per pair (item id, answer id)s, oldest first; empty ones where it is None."""
    histories = histories or [[] for _ in fields]
    padded = [[*history, *[(0, 0)] * (max_history - len(history))] for history in histories]
    items, answers = torch.tensor(padded).unbind(-1)
    return Batch(torch.tensor(fields), items, answers, torch.tensor([len(history) for history in histories]))
