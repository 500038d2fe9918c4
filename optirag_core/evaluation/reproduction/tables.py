"""The paper's tables 2 to 5 and 9 and figures 3, 4 and 6, on this data set."""

from collections.abc import Callable, Mapping

from optirag_core.config.reproduction import Part, ReproduceSettings
from optirag_core.evaluation.reproduction.answering import (
    MULTI_HEAD,
    PAPERS_THRESHOLD,
    PAPERS_WINDOW,
    RETRIEVER_ONLY,
    SINGLE_HEAD,
)
from optirag_core.evaluation.reproduction.document import Figure, Picture, Section, Table
from optirag_core.evaluation.reproduction.measurement import Answer
from optirag_core.evaluation.reproduction.measuring import CERTIFIED, FIXED_RATE, HEAD, mean_exit
from optirag_core.evaluation.reproduction.paper import printed
from optirag_core.evaluation.reproduction.plots.bars import draw_times
from optirag_core.evaluation.reproduction.plots.curves import Step, draw_by_layer, draw_sweep
from optirag_core.evaluation.reproduction.plots.marks import Words
from optirag_core.evaluation.reproduction.plotted import SHARE, by_layer, drawn, sweep
from optirag_core.evaluation.reproduction.results import Results, auc_figure, compared, widened
from optirag_core.evaluation.reproduction.variants import FM, LAST, NONE, SMALLER, TEXT, WEIGHTED

MAIN, PRUNED, FROZEN, SIMILAR = "main", "pruned", "frozen", "similar users"
OPTIRAG, GCN = "OptiRAG-Rec", "GCN-retriever"
FORM = (
    "The paper's form: heads read hidden states alone, and exits follow algorithm 2 with its ratio, a window of "
    f"{PAPERS_WINDOW} and a threshold of {PAPERS_THRESHOLD:g}."
)


def table2(results: Results, settings: ReproduceSettings) -> Section:
    """Models."""
    scores = {
        **results.baselines,
        "TALLRec": results.scores(NONE, RETRIEVER_ONLY),
        "LLM-retriever": results.scores(TEXT, RETRIEVER_ONLY),
        GCN: results.scores(MAIN, RETRIEVER_ONLY),
        OPTIRAG: results.scores(MAIN, MULTI_HEAD),
    }
    floors = {name: each for name, each in results.floors.items() if "regression" in name}
    scores |= floors
    own = "OptiRAG with evidence"
    if CERTIFIED in results.cells[MAIN].answers:
        scores[own] = results.scores(MAIN, CERTIFIED)
    caption = (
        "CTR models learn from all training samples, the LLM from few. TALLRec: the LLM without similar users and "
        "without exits; LLM- and GCN-retriever: with similar users, without exits. The regressions and the last row "
        "are not the paper's: a floor of what counts alone know, and our own system, which reads those counts and "
        "stops as its calibration has chosen."
    )
    table = compared("table2", "Models", caption, scores, results, reference=OPTIRAG, ours=(OPTIRAG, own))
    return Section("table2", "Table 2: models", (FORM, _tuning(settings)), (table,))


def table3(results: Results, settings: ReproduceSettings) -> Section:
    """Layer aggregation."""
    scores = {
        "mean": results.scores(MAIN, RETRIEVER_ONLY),
        "last": results.scores(LAST, RETRIEVER_ONLY),
        "weighted": results.scores(WEIGHTED, RETRIEVER_ONLY),
    }
    caption = "Similar users by the GCN's vectors as a mean over its layers, the last layer's, or a learned mixture."
    table = compared(
        "table3", "Layer aggregation", caption, scores, results, reference="mean", ours=("mean",), row_title="Layers"
    )
    return Section("table3", "Table 3: layers of the retriever", (_tuning(settings),), (table,))


def table4(results: Results, settings: ReproduceSettings) -> Section:
    """Components."""
    answers = {
        "neither": (NONE, RETRIEVER_ONLY, f"{NONE}: {RETRIEVER_ONLY}"),
        "retriever only": (MAIN, RETRIEVER_ONLY, RETRIEVER_ONLY),
        "early exit only": (NONE, MULTI_HEAD, f"{NONE}: {MULTI_HEAD}"),
        "retriever and single-head exit": (MAIN, SINGLE_HEAD, SINGLE_HEAD),
        "both (OptiRAG-Rec)": (MAIN, MULTI_HEAD, MULTI_HEAD),
    }
    both = "both (OptiRAG-Rec)"
    scores = {row: results.scores(cell, answer) for row, (cell, answer, _) in answers.items()}
    caption = (
        "Pairs per second of the whole path, from user ids to scores, one stage after the other: medians of "
        f"{settings.timed_rounds} rounds over {settings.timed_users:,} test users, all in turns. The paper's are "
        "requests per second of an A100."
    )
    table = compared("table4", "Components", caption, scores, results, reference=both, ours=(both,), row_title="System")
    told = printed("table4", results.paper)
    further = {}
    for row, (cell, answer, path) in answers.items():
        found = results.cells[cell].answers[answer]
        rate = results.rates.facts[path]["pairs_per_s"] if results.rates else None
        further[row] = (
            Figure(mean_exit(found), digits=2),
            Figure(100.0 * found.flops_share, digits=1),
            Figure(rate, digits=1, paper=told[row].other if row in told else None),
        )
    table = widened(table, ("mean exit layer", SHARE, "pairs/s"), further)
    return Section("table4", "Table 4: components", (FORM, _tuning(settings), *_confirmed(results)), (table,))


def table5(results: Results, settings: ReproduceSettings) -> Section:
    """GCN against FM."""
    scores = {GCN: results.scores(MAIN, RETRIEVER_ONLY), "FM-retriever": results.scores(FM, RETRIEVER_ONLY)}
    caption = "The same embeddings trained with the same loss, with and without propagation through the graph."
    table = compared(
        "table5", "Retrievers", caption, scores, results, reference=GCN, ours=(GCN,), row_title="Retriever"
    )
    return Section("table5", "Table 5: GCN against FM", (_tuning(settings),), (table,))


def table9(results: Results, settings: ReproduceSettings) -> Section:
    """Other ways to a cheaper LLM."""
    scores = {
        GCN: results.scores(MAIN, RETRIEVER_ONLY),
        OPTIRAG: results.scores(MAIN, MULTI_HEAD),
        "SparseGPT": results.scores(PRUNED, RETRIEVER_ONLY),
        "smaller LLM": results.scores(SMALLER, RETRIEVER_ONLY),
    }
    paths = {GCN: RETRIEVER_ONLY, OPTIRAG: MULTI_HEAD, "SparseGPT": RETRIEVER_ONLY}
    paths["smaller LLM"] = f"{SMALLER}: {RETRIEVER_ONLY}"
    caption = (
        f"SparseGPT: {settings.sparsity:.0%} of the weights of q, k, v and o are zero, chosen on the prompts of "
        f"{settings.calibration_users:,} users; multiplied as a dense matrix, so that it takes as long as the LLM "
        "itself. The smaller LLM is trained in the same way."
    )
    table = compared("table9", "Cheaper LLMs", caption, scores, results, reference=OPTIRAG, ours=(OPTIRAG,))
    rates = {row: (Figure(_rate(results, path), digits=1),) for row, path in paths.items()}
    return Section("table9", "Table 9: other ways to save", (FORM,), (widened(table, ("pairs/s",), rates),))


def figure3(results: Results, settings: ReproduceSettings) -> Section:
    """Retrieval time."""
    words = Words("figure3", "Time to find similar users", "Per user, from its id to the most similar users.")
    picture = draw_times(words, {"per user": results.times}, unit="ms")
    rows = tuple((name, (Figure(value, digits=3),)) for name, value in results.times.items())
    caption = (
        "The GCN's vector is looked up, a history is read by the encoder; both are then searched. The paper's encoder "
        "is Vicuna-7B."
    )
    table = Table("times", "Retrieval time", caption, ("ms per user",), rows, "Retriever", ("GCN",))
    return Section("figure3", "Figure 3: retrieval time", (), (table,), drawn(picture))


def figure4(results: Results, settings: ReproduceSettings) -> Section:
    """Learning rates."""
    answers = results.cells[MAIN].answers
    heads = {
        label: {
            int(name.rpartition(" ")[2]): auc_figure(each.scores, results)
            for name, each in answers.items()
            if name.startswith(f"{prefix} ")
        }
        for label, prefix in (("by depth", HEAD), ("one rate", FIXED_RATE))
    }
    words = Words("figure4", "Learning rates of the heads", "AUC of each exit layer's head, all pairs stopped there.")
    picture = drawn(draw_by_layer(words, heads), by_layer(words, heads))
    text = "Section 5.2: the rate falls with a head's depth. The paper sees no significant gain from it."
    return Section("figure4", "Figure 4: learning rates", (text,), (), picture)


def figure6(results: Results, settings: ReproduceSettings) -> Section:
    """Sweeps."""
    pictures: list[Picture] = []
    similar = []
    for k in settings.num_similar_users:
        cell = results.cells[f"{SIMILAR} {k}"]
        accuracy = auc_figure(cell.answers[RETRIEVER_ONLY].scores, results)
        similar.append(Step(k, accuracy, Figure(cell.facts["pairs_per_s"], digits=1)))
    words = Words(
        "figure6a",
        "Similar users in the prompt",
        "The same LLM, at full depth, reads more or fewer of them. Times are of one pass each, one after the other.",
    )
    chosen = 4.0 if 4 in settings.num_similar_users else None
    picture = draw_sweep(words, {"full depth": similar}, setting="similar users", chosen=chosen)
    pictures += drawn(picture, sweep(words, similar, setting="similar users"))
    for name, key, values, log in (
        ("figure6b", "threshold", settings.thresholds, True), ("figure6c", "window", settings.windows, False),
    ):  # fmt: skip
        answers = {value: results.cells[MAIN].answers.get(f"{key} {value:g}") for value in values}
        steps = [_step(value, answer, results) for value, answer in answers.items() if answer is not None]
        words = Words(name, f"The exit's {key}", "Replayed from one pass at full depth.")
        chosen = PAPERS_THRESHOLD if key == "threshold" else float(PAPERS_WINDOW)
        picture = draw_sweep(words, {"algorithm 2": steps}, setting=key, cost=SHARE, log=log, chosen=chosen)
        pictures += drawn(picture, sweep(words, steps, setting=key, cost=SHARE))
    return Section("figure6", "Figure 6: sweeps", (FORM,), (), tuple(pictures))


SECTIONS: Mapping[Part, Callable[[Results, ReproduceSettings], Section]] = {
    "table2": table2, "table3": table3, "table4": table4, "table5": table5, "table9": table9,
    "figure3": figure3, "figure4": figure4, "figure6": figure6,
}  # fmt: skip


def _step(value: float, answer: Answer, results: Results) -> Step:
    return Step(value, auc_figure(answer.scores, results), Figure(100.0 * answer.flops_share, digits=1))


def _rate(results: Results, path: str) -> float | None:
    return results.llm_rates.facts[path]["pairs_per_s"] if results.llm_rates else None


def _tuning(settings: ReproduceSettings) -> str:
    if settings.tune == "each":
        return "Each row's LLM was tuned on prompts of its own retriever, as in the paper."
    return "All rows share one LLM, tuned with the GCN's similar users: the others' prompts are new to it."


def _confirmed(results: Results) -> list[str]:
    """Live exits beside their replay."""
    if results.rates is None:
        return []
    live = results.rates
    replayed = results.cells[MAIN]
    common = [pair for pair in live.pairs if pair in set(replayed.pairs)]
    live, replayed = live.at(common), replayed.at(common)
    gaps = abs(live.answers[MULTI_HEAD].scores - replayed.answers[MULTI_HEAD].scores)
    moved = int((live.answers[MULTI_HEAD].exit_layers != replayed.answers[MULTI_HEAD].exit_layers).sum())
    return [
        f"The accuracies are replayed from one pass at full depth. Scored live, {len(common):,} pairs of the last row "
        f"have scores that differ by at most {gaps.max():.1e}, and {moved:,} of them stop at another layer."
    ]
