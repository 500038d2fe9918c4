"""The report is well-formed, stands alone, escapes what it is given, and says which floors win."""

import copy
import re
from html.parser import HTMLParser

import jinja2
import pytest

from optirag_core.evaluation.report import console_table, write_report

VOID = {"meta", "link", "br", "hr", "img", "input"}
HOSTILE = "<script>alert(1)</script>"
CONTEXT = {
    "dataset": "Books & more",
    "model": "a small Llama",
    "split": "last 10 % of every user",
    "shuffled_order": True,
    "warnings": ["17 of 1,000 lines are malformed"],
    "provenance": {"dataset": "ab" * 32, "seed": 0},
}


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
        write_report(path, summary, CONTEXT | changes)
        return path.read_text(encoding="utf-8")

    return render


@pytest.fixture
def losing(summary):
    """The summary with a user mean that beats the model, and a tie with the item mean."""
    summary = copy.deepcopy(summary)
    auc = summary["model"]["auc"]
    summary["floors"]["user mean"]["auc"], summary["floors"]["item mean"]["auc"] = auc + 0.0125, auc
    summary["beats_floor"] |= {"user mean": False, "item mean": False}
    return summary


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
        f"{summary['model']['auc']:.4f}",
        f"{summary['model']['auc_interval'][0]:.4f} to {summary['model']['auc_interval'][1]:.4f}",
        f"{summary['floors']['logistic regression']['log_loss']:.4f}",
        "Reliability",
        "Scores by label",
        "Where pairs stop",
        "ROC curve",
        "24 pairs without similar users",
    ):
        assert part in page.text, part
    assert "no time" not in Page(render(summary, shuffled_order=False)).text


def test_stands_alone(render, summary):
    html = render(summary)
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


def test_ids_are_unique_and_references_find_them(render, summary):
    html = render(summary)
    ids = [attributes["id"] for _, attributes in Page(html).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'(?:url\(|href=")#([\w-]+)', html) + re.findall(r'aria-labelledby="([^"]+)"', html))
    assert wanted <= set(ids)


def test_is_accessible(render, summary):
    page = Page(render(summary))
    assert page.all("html") == [{"lang": "en"}]
    figures = page.all("svg")
    assert len(figures) == len(page.all("figure")) == 4
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
    assert "above every simple floor" in won
    assert "beats the model" not in won
    assert "does not beat 2 of 4 simple floors: user mean, item mean." in lost
    assert "within the model's 95 % interval" in lost
    assert "beats the model by 0.0125 AUC" in lost
    assert "AUC equal to the model" in lost


def test_one_class_has_no_roc_and_no_verdict_on_floors(render, summary):
    summary = copy.deepcopy(summary)
    for metrics in (summary["model"], *summary["floors"].values()):
        metrics["auc"] = None
    summary["model"]["auc_interval"] = None
    summary["beats_floor"] = dict.fromkeys(summary["floors"])
    summary["roc"] = dict.fromkeys(summary["roc"])
    page = Page(render(summary))
    assert "nothing can be ranked" in page.text
    assert len(page.all("figure")) == 3
    assert re.search(r"^AUC +n/a$", console_table(summary), re.MULTILINE)


def test_same_input_same_bytes(render, summary):
    assert render(summary) == render(summary)


def test_a_missing_context_key_is_an_error(tmp_path, summary):
    with pytest.raises(jinja2.UndefinedError, match="split"):
        write_report(tmp_path / "report.html", summary, {key: CONTEXT[key] for key in CONTEXT if key != "split"})


def test_console_table(summary, losing):
    lines = console_table(summary).splitlines()
    assert [line for line in lines if re.match(r"^\s*AUC\s+0\.\d{4}", line)] == [
        f"AUC                        {summary['model']['auc']:.4f}"
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
        "log loss",
        "calibration error",
        "mean exit layer",
        "pairs/s",
    ]
    assert lines[-1].endswith(" 20.0")
    assert "beats" not in console_table(summary)
    assert re.findall(r"floor (.+?)  .*beats the model", console_table(losing)) == ["user mean"]
