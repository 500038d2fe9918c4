"""What the paper does not show: what the LLM adds to counts, exit criteria side by side, and for whom it works."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from optirag_core.engine.certificate import Calibration
from optirag_core.evaluation.bootstrap import bootstrap_auc_difference
from optirag_core.evaluation.metrics import calibration_bins
from optirag_core.evaluation.reproduction import plotted
from optirag_core.evaluation.reproduction.answering import MULTI_HEAD, RETRIEVER_ONLY
from optirag_core.evaluation.reproduction.document import Figure, Picture, Section, Table
from optirag_core.evaluation.reproduction.measuring import (
    BOTH,
    CERTIFIED,
    EVIDENCE_ALONE,
    HEAD,
    SURE,
    family,
    mean_exit,
)
from optirag_core.evaluation.reproduction.plots.bars import draw_exit_layers
from optirag_core.evaluation.reproduction.plots.curves import draw_by_layer, draw_reliability
from optirag_core.evaluation.reproduction.plots.marks import Words
from optirag_core.evaluation.reproduction.plots.pareto import Choice, draw_pareto
from optirag_core.evaluation.reproduction.plots.slices import Row, draw_slices
from optirag_core.evaluation.reproduction.results import Results, auc_figure, compared
from optirag_core.evaluation.reproduction.tables import FROZEN, MAIN
from optirag_core.evaluation.slices import Slice, Traits, slices_of

STRONG, OWN, LOST = "strong regression", "the run's policy", "AUC less full depth"
"""`OWN` is what rows and plots call `CERTIFIED`: where nothing passed it is full depth, and has no certificate."""
NUM_RESAMPLES = 200
"""Of each of some 60 policies."""


def ours(results: Results, traits: Traits, calibration: Calibration) -> Section:
    """All of it.

    Args:
        traits: of the results' pairs.
        calibration: of the run's exit policy.
    """
    text = (
        "Evidence is what the interactions before a request's moment say of user, item and attributes, as smoothed "
        "counts. The heads read it beside the hidden state; the evidence alone is an exit at depth 0.",
        f"The run's exits: {calibration.statement}.",
    )
    tables = (_worth(results), _approximations(results))
    return Section("ours", "Beyond the paper", text, tables, tuple(_pictures(results, traits)))


def _answers(results: Results) -> Mapping[str, np.ndarray]:
    return {name: each.scores for name, each in results.cells[MAIN].answers.items()}


def _worth(results: Results) -> Table:
    answers = _answers(results)
    scores = dict(results.floors)
    named = {EVIDENCE_ALONE: EVIDENCE_ALONE, "LLM alone": RETRIEVER_ONLY, BOTH: BOTH, OWN: CERTIFIED}
    scores |= {row: answers[name] for row, name in named.items() if name in answers}
    caption = "Floors know all interactions outside of the test split. Both: evidence and LLM, at full depth."
    title = "What the LLM is worth"
    return compared("worth", title, caption, scores, results, reference=STRONG, ours=(BOTH, OWN))


def _approximations(results: Results) -> Table:
    """Exact exits against those that look at a user's other candidates, or leave the prefix behind."""
    found = dict(results.cells[MAIN].answers)
    names = [name for name in (BOTH, CERTIFIED) if name in found]
    names += [name for name in found if name.startswith("group_stop")]
    if FROZEN in results.cells:
        found |= results.cells[FROZEN].answers
        names += results.cells[FROZEN].answers
    rows = []
    for name in names:
        answer = found[name]
        depth, share = Figure(mean_exit(answer), digits=2), Figure(100.0 * answer.flops_share, digits=1)
        rows.append((_shown(name), (auc_figure(answer.scores, results), depth, share)))
    caption = (
        f"Approximate: group_stop k stops a user's candidates together once fewer than k are left, and all at the "
        "first exit where users are asked for one candidate each; frozen_prefix_after l keeps the prefix's hidden "
        f"states above layer l. Both with exits where a head is at least {SURE:.0%} sure."
    )
    columns = ("AUC", "mean exit layer", plotted.SHARE)
    return Table("approximations", "Exact and approximate exits", caption, columns, tuple(rows), "Policy")


def _pictures(results: Results, traits: Traits) -> Iterator[Picture]:
    best = CERTIFIED if CERTIFIED in results.cells[MAIN].answers else BOTH
    yield from _pareto(results)
    yield from _reliability(results, best)
    yield from _exit_layers(results, best)
    yield from _layers(results)
    yield from _sliced(results, traits, best)


def _pareto(results: Results) -> tuple[Picture, ...]:
    """AUC less full depth's on the same draws of users: far narrower than two intervals beside each other."""
    found = results.cells[MAIN].answers
    families: dict[str, list[Choice]] = {}
    for name, answer in found.items():
        group = family(name) or (OWN if name == CERTIFIED else None)
        if group is None:
            continue
        gap = bootstrap_auc_difference(
            results.labels, answer.scores, found[BOTH].scores, results.seed, NUM_RESAMPLES, groups=results.users
        )
        if gap is not None:
            choice = Choice(_shown(name), answer.flops_share, Figure(gap.value, gap.low, gap.high))
            families.setdefault(group, []).append(choice)
    words = Words(
        "pareto", "Accuracy against cost",
        "Every criterion at its thresholds, replayed at the test pairs, with heads that read the evidence.",
    )  # fmt: skip
    picture = draw_pareto(words, families, accuracy=LOST, chosen=OWN)
    return plotted.drawn(picture, plotted.choices(words, families, accuracy=LOST))


def _reliability(results: Results, best: str) -> tuple[Picture, ...]:
    scores = _answers(results)
    shown = {_shown(best): scores[best], "LLM alone": scores[RETRIEVER_ONLY], STRONG: results.floors[STRONG]}
    bins = {name: calibration_bins(results.labels, each) for name, each in shown.items()}
    words = Words("reliability", "Reliability", "On the test pairs.")
    return plotted.drawn(draw_reliability(words, bins), plotted.reliability(words, bins))


def _exit_layers(results: Results, best: str) -> tuple[Picture, ...]:
    answers = results.cells[MAIN].answers
    pairs = {
        name: dict(Counter(answers[answer].exit_layers.tolist()))
        for name, answer in ((_shown(best), best), ("algorithm 2", MULTI_HEAD))
    }
    words = Words("exits", "Where pairs stop", "By the run's own policy and by algorithm 2 in the paper's form.")
    return plotted.drawn(draw_exit_layers(words, pairs), plotted.exit_layers(words, pairs))


def _layers(results: Results) -> tuple[Picture, ...]:
    scores = _answers(results)
    heads = {
        int(name.rpartition(" ")[2]): auc_figure(each, results)
        for name, each in scores.items()
        if name.startswith(f"{HEAD} ")
    }
    last = int(results.cells[MAIN].answers[RETRIEVER_ONLY].exit_layers.max())
    by_way = {"heads": heads | {last: auc_figure(scores[RETRIEVER_ONLY], results)}}
    words = Words("layers", "What each layer knows", "AUC of the heads in the paper's form, without evidence.")
    return plotted.drawn(draw_by_layer(words, by_way), plotted.by_layer(words, by_way))


def _sliced(results: Results, traits: Traits, best: str) -> Iterator[Picture]:
    models = {_shown(best): _answers(results)[best], STRONG: results.floors[STRONG]}
    found = {
        model: slices_of(results.labels, scores, results.users, traits, seed=results.seed)
        for model, scores in models.items()
    }
    for by in dict.fromkeys(each.name for each in found[_shown(best)]):
        rows = []
        for number, each in enumerate(found[_shown(best)]):
            if each.name != by:
                continue
            figures = {model: _figure(slices[number]) for model, slices in found.items()}
            rows.append(Row(each.values, each.pairs, figures))
        address = "slices-" + "-".join(by.split())
        words = Words(address, f"AUC by {by}", "On parts of the test pairs.")
        yield from plotted.drawn(draw_slices(words, rows, by=by), plotted.slices(words, rows))


def _shown(answer: str) -> str:
    return OWN if answer == CERTIFIED else answer


def _figure(each: Slice) -> Figure:
    low, high = each.auc_interval or (None, None)
    return Figure(each.auc, low, high)
