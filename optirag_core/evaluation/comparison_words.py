"""A comparison of two runs as a table for the terminal, and what of it is beyond its bound."""

from optirag_core.config.comparison import CompareSettings
from optirag_core.evaluation.comparison import Comparison, ExitDrift, TopDrift
from optirag_core.evaluation.html_page import number
from optirag_core.evaluation.sentences import paired

Row = tuple[str, str, str, str]
"""Name, the run before, the new one, and the difference."""


def beyond(found: Comparison, bounds: CompareSettings) -> list[str]:
    """What exceeds its bound, a line for each; a figure that is not known is beyond the bound on it.

    A `top` without users is within all bounds: no list can have changed.
    """
    lines = []
    for name, (words, value) in _figures(found).items():
        if (bound := getattr(bounds, name)) is None:
            continue
        if value is None:
            lines.append(f"{words} not known ({_unknown(found)}), but compare.{name} is {bound:g}")
        elif value > bound:
            lines.append(f"{words} {value:.4g}, above compare.{name} {bound:g}")
    least = bounds.min_common_share
    if least is not None and found.common_share < least:
        lines.append(f"both scored {found.common_share:.4g} of the pairs, below compare.min_common_share {least:g}")
    return lines


def comparison_table(found: Comparison) -> str:
    """A line for each `Row`."""
    rows = [("", found.before, found.after, "difference"), *_counts(found), *_drifts(found), *_quality(found)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows)
    return "\n".join(lines)


def _figures(found: Comparison) -> dict[str, tuple[str, float | None]]:
    """By the name of the bound: what it is, and its value."""
    labelled, top = found.labelled, found.top
    drop = -labelled.auc.value if labelled and labelled.auc else None
    changed = (top.changed or 0.0) if top else None
    return {
        "max_auc_drop": ("AUC is lower by", drop),
        "max_log_loss_rise": ("log loss is higher by", labelled.log_loss.value if labelled else None),
        "max_mean_score_drift": ("mean score drift is", found.score.mean if found.score else None),
        "max_exit_changed": ("share of pairs at another exit is", found.exits.changed if found.exits else None),
        "max_top_changed": ("share of users with another list is", changed),
    }


def _unknown(found: Comparison) -> str:
    if not found.pairs:
        return "both scored no pair"
    return found.unlabelled_because or "all labels are the same"


def _counts(found: Comparison) -> list[Row]:
    rows = [
        ("pairs scored", f"{found.pairs + found.only_before:,}", f"{found.pairs + found.only_after:,}", ""),
        ("scored there alone", f"{found.only_before:,}", f"{found.only_after:,}", ""),
    ]
    for code in sorted({*found.rejects_before, *found.rejects_after}):
        before, after = found.rejects_before.get(code, 0), found.rejects_after.get(code, 0)
        rows.append((f"rejected, {code}", f"{before:,}", f"{after:,}", f"{after - before:+,}"))
    return rows


def _drifts(found: Comparison) -> list[Row]:
    score, exits, top = found.score, found.exits, found.top
    if score is None or exits is None or top is None:
        return [("both scored no pair", "", "", "")]
    quantiles = (f"{share:.0%} of pairs at most" for share in score.quantiles)
    return [
        (f"{found.pairs:,} pairs of {found.users:,} users in both", "", "", ""),
        ("mean |score difference|", "", "", f"{score.mean:.4f}"),
        *((words, "", "", f"{value:.4f}") for words, value in zip(quantiles, score.quantiles.values(), strict=True)),
        ("largest", "", "", f"{score.max:.4f}"),
        ("correlation of scores", "", "", number(score.correlation)),
        ("mean exit layer", *_three(exits.mean_before, exits.mean_after, 2)),
        *_exit_rows(exits, found.pairs),
        ("pairs at another exit", "", "", f"{exits.changed:.2%}"),
        *_top_rows(top),
    ]


def _top_rows(top: TopDrift) -> list[Row]:
    if top.changed is None:
        return [(f"no user has more than {top.top_k} pairs: no list can change", "", "", "")]
    return [
        (f"users with another top {top.top_k}", "", "", f"{top.changed:.2%}"),
        (f"of {top.users:,} users, mean overlap", "", "", number(top.mean_overlap)),
    ]


def _exit_rows(exits: ExitDrift, pairs: int) -> list[Row]:
    rows = []
    for layer in sorted({*exits.before, *exits.after}):
        before, after = exits.before.get(layer, 0) / pairs, exits.after.get(layer, 0) / pairs
        rows.append((f"pairs at layer {layer}", f"{before:.2%}", f"{after:.2%}", f"{after - before:+.2%}"))
    return rows


def _quality(found: Comparison) -> list[Row]:
    labelled = found.labelled
    if labelled is None:
        return [(f"no labels: {found.unlabelled_because}", "", "", "")]
    before, after = labelled.before, labelled.after
    auc = "n/a" if labelled.auc is None else paired(labelled.auc)
    return [
        (f"{before.pairs:,} labelled pairs: AUC", number(before.auc), number(after.auc), auc),
        ("log loss", number(before.log_loss), number(after.log_loss), paired(labelled.log_loss)),
    ]


def _three(before: float, after: float, digits: int) -> tuple[str, str, str]:
    return f"{before:.{digits}f}", f"{after:.{digits}f}", f"{after - before:+.{digits}f}"
