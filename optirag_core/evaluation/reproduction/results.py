"""Everything that was measured, on the same pairs: what sections are written from.

Shapes: n pairs, S seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optirag_core.evaluation.bootstrap import resampled_aucs
from optirag_core.evaluation.metrics import has_both_classes
from optirag_core.evaluation.reproduction.document import Figure, Table
from optirag_core.evaluation.reproduction.measurement import Measurement
from optirag_core.evaluation.reproduction.paper import Printed, printed
from optirag_core.evaluation.significance import compare_all, seeded_metrics

NUM_RESAMPLES = 500
"""Of an interval: its ends are then within a twentieth of its width."""


@dataclass(frozen=True)
class Results:
    """Scores of the pairs that all have scored."""

    cells: Mapping[str, Measurement]  # of the test pairs, by name
    rates: Measurement | None  # table 4's, of a sample of them
    llm_rates: Measurement | None  # table 9's
    times: Mapping[str, float]  # method -> milliseconds per user
    baselines: Mapping[str, np.ndarray]  # model -> [S, n]
    floors: Mapping[str, np.ndarray]  # name -> [n]
    users: np.ndarray  # [n]
    labels: np.ndarray  # [n]
    paper: str | None  # the paper's name of the data set
    seed: int

    def scores(self, cell: str, answer: str) -> np.ndarray:
        """[n]."""
        return self.cells[cell].answers[answer].scores


def aligned(cells: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """The cells at the pairs that all of them have, sorted: a prompt that is too long may lack in some."""
    common = set.intersection(*(set(cell.pairs) for cell in cells.values()))
    order = sorted(common)
    return {name: cell.at(order) for name, cell in cells.items()}


def compared(
    name: str, title: str, caption: str, scores: Mapping[str, np.ndarray], results: Results,
    *, reference: str, ours: Sequence[str] = (), row_title: str = "Model",
) -> Table:  # fmt: skip
    """AUC and log loss of every row, with what the paper prints, and whether a row can be told from the reference.

    Args:
        scores: row -> [n] or [S, n].
        reference: a row.
    """
    told = printed(name, results.paper)
    tests = compare_all(results.labels, results.users, scores, reference=reference, seed=results.seed)
    intervals = _intervals(scores, results)
    rows = []
    for row, each in scores.items():
        metrics, test = seeded_metrics(results.labels, each), tests.get(row)
        of_paper = told.get(row)
        auc = Figure(
            metrics.auc.mean if metrics.auc else None, *intervals[row],
            paper=of_paper.auc if of_paper else None, is_noise=bool(test and test.auc and test.auc.is_noise),
        )  # fmt: skip
        loss = Figure(
            metrics.log_loss.mean, paper=of_paper.other if of_paper and name != "table4" else None,
            is_noise=bool(test and test.log_loss.is_noise),
        )  # fmt: skip
        rows.append((row, (auc, loss, within_users(each, results))))
    columns = ("AUC", "log loss, nats", "AUC within users")
    return Table(name, title, caption, columns, tuple(rows), row_title, tuple(ours), reference)


def within_users(scores: np.ndarray, results: Results) -> Figure:
    """AUC inside of each user who has both classes, averaged over their pairs; n/a where nobody has."""
    shares = [_within(row, results) for row in np.atleast_2d(scores)]
    found = [share for share in shares if share is not None]
    return Figure(float(np.mean(found)) if found else None)


def widened(table: Table, columns: Sequence[str], figures: Mapping[str, Sequence[Figure]]) -> Table:
    """A table with further columns.

    Args:
        figures: row -> one per new column.
    """
    rows = tuple((row, (*cells, *figures[row])) for row, cells in table.rows)
    return replace(table, columns=(*table.columns, *columns), rows=rows)


def auc_figure(scores: np.ndarray, results: Results, paper: Printed | None = None) -> Figure:
    """AUC with its interval."""
    metrics = seeded_metrics(results.labels, scores)
    [interval] = _intervals({"": scores}, results).values()
    return Figure(metrics.auc.mean if metrics.auc else None, *interval, paper=paper.auc if paper else None)


def _intervals(scores: Mapping[str, np.ndarray], results: Results) -> dict[str, tuple[float | None, float | None]]:
    """95 % interval of the mean AUC over seeds; all on the same draws of users."""
    by_name = {name: np.atleast_2d(each) for name, each in scores.items()}
    columns = [row for each in by_name.values() for row in each]
    drawn = resampled_aucs(results.labels, columns, results.seed, NUM_RESAMPLES, groups=results.users)
    found: dict[str, tuple[float | None, float | None]] = dict.fromkeys(scores, (None, None))
    if drawn is None:  # one class alone
        return found
    start = 0
    for name, each in by_name.items():
        low, high = np.percentile(drawn[:, start : start + len(each)].mean(axis=1), [2.5, 97.5])
        found[name], start = (float(low), float(high)), start + len(each)
    return found


def _within(scores: np.ndarray, results: Results) -> float | None:
    """Pairs (liked, not liked) of one user in the right order, half for ties, over all such; each user by its pairs."""
    total = weight = 0.0
    order = np.argsort(results.users, kind="stable")
    starts = np.unique(results.users[order], return_index=True)[1]
    for rows in np.split(order, starts[1:]):
        labels, own = results.labels[rows], scores[rows]
        if not has_both_classes(labels):
            continue
        gaps = own[labels == 1][:, None] - own[labels == 0][None]
        total += len(rows) * float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))
        weight += len(rows)
    return total / weight if weight else None
