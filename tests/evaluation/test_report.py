"""The report is well-formed, stands alone, escapes what it is given, and says which floors win."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from optirag_core.engine.policy import ExitPolicy
from optirag_core.evaluation.bootstrap import Difference
from optirag_core.evaluation.predictors import PREDICTORS, predictions
from optirag_core.evaluation.report import ReportContext, console_table, write_report
from optirag_core.evaluation.summary import summarize

from .conftest import RUN

VOID = {"meta", "link", "br", "hr", "img", "input"}
HOSTILE = "<script>alert(1)</script>"
LENGTHS = {"tune": {"3": 60, "4": 40}, "validation": {"5": 1}, "test": {"3": 10, "14": 20, "15": 30, "40": 20}}
CONTEXT = ReportContext(
    dataset="Books & more",
    model="a small Llama",
    split="last 10 % of every user",
    shuffled_order=True,
    warnings=["17 of 1,000 lines are malformed"],
    history_lengths=LENGTHS,
    curves={},
    provenance={"dataset": "ab" * 32, "seed": 0},
    exit_policy=ExitPolicy("none", window=3, threshold=0.01),
    calibration=None,
)


class Page(HTMLParser):
    """Start tags with attributes, text, and a check that every tag is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def render(tmp_path):
    def render(summary, **changes):
        path = tmp_path / "report.html"
        write_report(path, summary, replace(CONTEXT, **changes))
        return path.read_text(encoding="utf-8")

    return render


@pytest.fixture
def losing(summary):
    """The summary with a global mean that beats the model, a user mean that may, and a tie with the item mean."""
    auc, floors = summary.model.auc, summary.floors
    changed = {
        "global mean": Difference(-0.01, -0.02, -0.002),
        "user mean": Difference(-0.0125, -0.03, 0.005),
        "item mean": Difference(0.0, -0.01, 0.01),
    }
    return replace(
        summary,
        floors=floors | {name: replace(floors[name], auc=auc - each.value) for name, each in changed.items()},
        over_floors=summary.over_floors | changed,
    )


def test_holds_every_part(render, summary):
    page = Page(render(summary))
    assert page.text.count("Books & more") == 3  # title, heading, sentence
    for part in (
        "240 user-item pairs",
        "a small Llama",
        "last 10 % of every user",
        "The order is a seeded shuffle: the publisher gives no time.",
        "17 of 1,000 lines are malformed",
        "ab" * 32,
        f"{summary.model.auc:.4f}",
        f"{summary.model.auc_interval[0]:.4f} to {summary.model.auc_interval[1]:.4f}",
        f"{summary.floors['logistic regression'].log_loss:.4f}",
        "Reliability",
        "Scores by label",
        "Where pairs stop",
        "ROC curve",
        "History lengths",
        "20.0 240 in 12.0 s of scoring",
        "24 pairs without similar users",
    ):
        assert part in page.text, part
    assert "no time" not in Page(render(summary, shuffled_order=False)).text


def test_stands_alone(render, summary_with_worth, calibration):
    html = render(summary_with_worth, calibration=calibration)
    page = Page(html)
    assert not re.search(r"https?:|@import|url\((?!#)", html)
    assert not page.all("script") + page.all("link") + page.all("img") + page.all("iframe")
    references = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href")
    ]
    assert references
    assert all(value.startswith("#") for value in references)


def test_ids_are_unique_and_references_find_them(render, summary_with_worth, calibration):
    html = render(summary_with_worth, calibration=calibration)
    ids = [attributes["id"] for _, attributes in Page(html).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'(?:url\(|href=")#([\w-]+)', html) + re.findall(r'aria-labelledby="([^"]+)"', html))
    assert wanted <= set(ids)


def test_is_accessible(render, summary_with_worth):
    page = Page(render(summary_with_worth))
    assert page.all("html") == [{"lang": "en"}]
    figures = page.all("svg")
    assert len(figures) == len(page.all("figure")) == 6
    assert all(each["role"] == "img" and each["aria-label"].endswith(".") for each in figures)
    assert {each["scope"] for each in page.all("th")} == {"row", "col"}
    assert len(page.all("h1")) == 1


@pytest.mark.parametrize("key", ["dataset", "model", "split"])
def test_escapes_texts(render, summary, key):
    html = render(summary, **{key: HOSTILE})
    assert HOSTILE not in html
    assert HOSTILE in Page(html).text


def test_escapes_warnings_and_provenance(render, summary):
    html = render(summary, warnings=[HOSTILE, '" onload="x'], provenance={HOSTILE: "</table><script>"})
    assert not Page(html).all("script")
    assert Page(html).text.count(HOSTILE) == 2
    assert not [attributes for _, attributes in Page(html).tags if "onload" in attributes]


def test_names_the_floors_that_win(render, summary, losing):
    won, lost = Page(render(summary)).text, Page(render(losing)).text
    assert "above every floor" in won
    assert "beats the model" not in won
    assert f"does not beat 3 of {len(PREDICTORS)} floors: global mean, user mean, item mean." in lost
    paired = (
        "From the best floor, user mean, its AUC differs by -0.0125 (95 %: -0.0300 to +0.0050): nothing that can be"
    )
    assert paired in lost
    assert "Global mean beats the model by 0.0100 AUC (0.0020 to 0.0200)" in lost
    assert "User mean not told apart from the model: AUC 0.0125 above it (-0.0050 to 0.0300)" in lost
    assert "AUC equal to the model" in lost


def test_a_registered_predictor_enters_the_report_by_itself(render, world):
    known, scored = world
    predictors = PREDICTORS | {"oracle": lambda known, pairs: np.where(scored.labels == 1, 0.9, 0.1)}
    floors = predictions(known, scored.pairs, predictors)
    summary = summarize(scored, floors, RUN, exit_layers=(2, 4), num_layers=6, seed=0)
    page = Page(render(summary))
    assert f"does not beat 1 of {len(PREDICTORS) + 1} floors: oracle." in page.text
    assert f"Oracle beats the model by {1 - summary.model.auc:.4f} AUC" in page.text
    assert [each["aria-label"] for each in page.all("svg") if each["aria-label"].startswith("ROC")] == [
        f"ROC curves, AUC: oracle 1.0000, model {summary.model.auc:.4f}."
    ]
    assert re.search("^floor oracle .*beats the model$", console_table(summary), re.MULTILINE)


def test_one_class_has_no_roc_and_no_verdict_on_floors(render, world):
    known, scored = world
    liked = replace(scored, labels=np.ones_like(scored.labels))
    floors = predictions(known, liked.pairs)
    summary = summarize(liked, floors, RUN, exit_layers=(2, 4), num_layers=6, seed=0)
    page = Page(render(summary))
    assert "nothing can be ranked" in page.text
    assert "ROC curve" not in page.text
    assert len(page.all("figure")) == 4
    assert re.search(r"^AUC +n/a$", console_table(summary), re.MULTILINE)


def test_says_what_the_llm_is_worth(render, summary_with_worth):
    page, worth = Page(render(summary_with_worth)), summary_with_worth.worth
    for part in (
        "The LLM adds to the evidence: AUC",
        f"Evidence alone {worth.evidence.auc:.4f}",
        f"LLM alone {worth.llm.auc:.4f}",
        f"Both {worth.both.auc:.4f}",
        f"Both less evidence alone {worth.over_evidence.auc.value:+.4f}",
        f"LLM alone less user mean {worth.llm_over_floors['user mean'].auc.value:+.4f}",
        f"{worth.over_evidence.log_loss.low:+.4f} to {worth.over_evidence.log_loss.high:+.4f}",
        f"Run less full depth {worth.exits.auc.value:+.4f}",
    ):
        assert part in page.text, part
    layers = ", ".join(f"layer {layer} {metrics.auc:.4f}" for layer, metrics in worth.layers.items())
    [label] = [each["aria-label"] for each in page.all("svg") if "by layer" in each["aria-label"]]
    assert label == f"AUC by layer: {layers}; LLM alone {worth.llm.auc:.4f}."
    assert page.text.index("beside its floors") < page.text.index("is worth") < page.text.index("Exit policy")


def test_noise_is_marked_in_the_table(render, summary_with_worth):
    worth = summary_with_worth.worth
    noise = replace(worth.over_evidence, auc=Difference(0.001, -0.001, 0.003))
    marked = Page(render(replace(summary_with_worth, worth=replace(worth, over_evidence=noise)))).text
    assert "Both less evidence alone +0.0010 -0.0010 to +0.0030 noise" in marked
    assert "noise" not in Page(render(summary_with_worth)).text


def test_the_papers_form_shows_the_llm_alone(render, summary_with_worth):
    worth = summary_with_worth.worth
    heads = {layer: metrics for layer, metrics in worth.layers.items() if layer}
    paper = replace(worth, evidence=None, both=None, over_evidence=None, over_llm=None, layers=heads)
    page = Page(render(replace(summary_with_worth, worth=paper)))
    assert "The heads read no evidence" in page.text
    assert f"LLM alone {worth.llm.auc:.4f}" in page.text
    assert not re.search("Evidence alone|Both", page.text)
    assert "What the LLM is worth" not in Page(render(replace(summary_with_worth, worth=None))).text


def test_one_class_shows_log_losses_by_layer(render, summary_with_worth):
    worth = summary_with_worth.worth
    parts = {name: replace(getattr(worth, name), auc=None, auc_interval=None) for name in ("llm", "evidence", "both")}
    gains = {name: replace(getattr(worth, name), auc=None) for name in ("over_evidence", "over_llm", "exits")}
    html = render(replace(summary_with_worth, worth=replace(worth, **parts, **gains)))
    assert "log loss by layer" in html
    assert "Both less LLM alone n/a" in Page(html).text


def test_shows_what_was_trained(render, summary):
    curves = {
        "retriever": {
            "loss": [[10, 0.7], [20, 0.5]],
            "validation_loss": [[10, 0.65], [20, 0.6]],
            "recall_at_20": [[10, 0.02], [20, 0.04]],
            "ndcg_at_20": [[10, 0.01], [20, 0.03]],
        },
        "llm": {"loss": [[5, 1.5]], "validation_loss": []},
        "exit_heads": {"loss": [], "validation_loss": []},  # none was trained
    }
    page = Page(render(summary, curves=curves))
    labels = [each["aria-label"] for each in page.all("svg") if each["aria-label"].startswith(("Retriever:", "LLM:"))]
    assert labels == [
        "Retriever: training loss from 0.7000 to 0.5000 in 20 steps, least validation loss 0.6000.",
        "Retriever: Recall@20 from 0.0200 to 0.0400, NDCG@20 from 0.0100 to 0.0300.",
        "LLM: training loss from 1.5000 to 1.5000 in 5 steps.",
    ]
    assert page.text.index("Plots") < page.text.index("Loss against steps") < page.text.index("left out")
    assert "Loss against steps" not in Page(render(summary)).text


def test_shows_the_certificate(render, summary, calibration):
    certified = Page(render(summary, calibration=calibration, exit_policy=calibration.certified.policy)).text
    for part in (
        f"Certified: {calibration.statement}",
        "ratio, threshold 0.02, window 3, evidence alone decides from 0.9700 sure",
        "Users that certify 3,100 pairs 1,250",
        "0.00090 at most 0.00180",
        "over the policy's 2.22",
        "Mean exit layer 2.70",
        "What exits cost and save",
    ):
        assert part in certified, part
    assert "Every pair went through all layers." in Page(render(summary)).text
    by_hand = Page(render(summary, exit_policy=ExitPolicy("ratio", window=3, threshold=0.01))).text
    assert "Uncertified" in by_hand
    assert "Rule: ratio, threshold 0.01, window 3." in by_hand


def test_a_policy_without_exit_layers_shows_none(render, summary, calibration):
    alone = replace(calibration.certified, policy=ExitPolicy("none", 2, 0.0, evidence_confidence=0.97), layers=())
    calibration = replace(calibration, candidates=(calibration.candidates[0], alone), chosen=1)
    text = Page(render(summary, calibration=calibration, exit_policy=alone.policy)).text
    assert "Pairs stop by exit layers none evidence alone decides from 0.9700 sure" in text


def test_where_nothing_had_to_be_tested_no_plot_says_what_was(render, summary, calibration):
    free = replace(calibration.certified, p_value=None, flops_share=0.0)
    untested = replace(calibration, num_users=0, num_pairs=0, chosen=1, candidates=(calibration.candidates[0], free))
    text = Page(render(summary, calibration=untested, exit_policy=free.policy)).text
    assert "Certified: no answer changes, as full depth says what the evidence says." in text
    assert "no layer is run" in text and "What exits cost and save" not in text


def test_says_what_the_run_left_out(render, summary):
    page = Page(render(replace(summary, run=replace(RUN, dropped_entries=1234))))
    for part in (
        "Pairs rejected of 249 asked: unknown_item 7, prompt_too_long 2 9",
        "History entries that prompts had no room for, those of left out users among them 1,234",
        "where prompts were too long even so 4",
    ):
        assert part in page.text, part


def test_history_lengths_of_tune_and_test_are_shown_side_by_side(render, summary):
    label = "Earlier interactions: 15 or more in 0.0% of the tune prompts and 62.5% of the test prompts."
    page = Page(render(summary))
    assert label in [each["aria-label"] for each in page.all("svg")]
    assert "15+" in page.text


@pytest.mark.parametrize("lengths", [{}, {"test": {"3": 4}}, {"tune": {"3": 4}, "test": {}}])
def test_without_both_splits_there_are_no_history_lengths(render, summary, lengths):
    page = Page(render(summary, history_lengths=lengths))
    assert "History lengths" not in page.text
    assert len(page.all("figure")) == 4


def test_same_input_same_bytes(render, summary):
    assert render(summary) == render(summary)


def test_console_table_says_what_the_llm_is_worth(summary_with_worth):
    worth = summary_with_worth.worth
    table = console_table(summary_with_worth)
    assert re.findall(r"^(evidence alone|LLM alone|both) +(.+)$", table, re.MULTILINE) == [
        (name, f"{part.auc:.4f}")
        for name, part in (("evidence alone", worth.evidence), ("LLM alone", worth.llm), ("both", worth.both))
    ]
    assert re.search(r"^LLM adds +\+0\.\d{4} \(95 %: \+0\.\d{4} to \+0\.\d{4}\)$", table, re.MULTILINE)
    noise = replace(worth, over_evidence=replace(worth.over_evidence, auc=Difference(0.001, -0.001, 0.003)))
    table = console_table(replace(summary_with_worth, worth=noise))
    assert "+0.0010 (95 %: -0.0010 to +0.0030), noise" in table


def test_console_table(summary, losing):
    lines = console_table(summary).splitlines()
    assert [line for line in lines if re.match(r"^\s*AUC\s+0\.\d{4}", line)] == [
        f"AUC                        {summary.model.auc:.4f}"
    ]
    names = [re.split(r"\s{2,}", line)[0] for line in lines]
    assert names == [
        "pairs",
        "AUC",
        "95 % interval",
        "floor global mean",
        "floor user mean",
        "floor item mean",
        "floor logistic regression",
        "floor strong regression",
        "log loss",
        "calibration error",
        "mean exit layer",
        "pairs/s",
    ]
    assert lines[-1].endswith(" 20.0")
    assert "beats" not in console_table(summary)
    assert re.findall(r"floor (.+?)  .*beats the model", console_table(losing)) == ["global mean"]
