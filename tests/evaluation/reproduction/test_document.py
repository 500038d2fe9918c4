"""A document's cells say what they hold, its tables what their marks mean, and its names are addresses."""

import pytest

from optirag_core.evaluation.reproduction.document import Document, Figure, Section, Table


def test_a_figure_shows_its_decimals() -> None:
    assert Figure(0.75).shown == "0.7500"
    assert Figure(12345.6, digits=0).shown == "12,346"
    assert Figure(None).shown == "n/a"
    assert Figure(3.0, text="three").shown == "three"
    assert Figure(0.75, 0.7, 0.8, digits=2).shown_interval == "0.70 to 0.80"
    assert Figure(0.75).shown_interval is None
    assert Figure(0.75, paper=0.9637, digits=3).shown_paper == "0.964"
    assert Figure(0.75).shown_paper is None


def test_a_legend_names_only_the_marks_that_there_are() -> None:
    def legend(figure: Figure, reference: str | None = None) -> tuple[str, ...]:
        return Table("t", "T", "", ("AUC",), (("a", (figure,)),), reference=reference).legend

    assert legend(Figure(0.7)) == ()
    assert legend(Figure(0.7, 0.6, 0.8)) == ("Small: the 95 % interval.",)
    assert legend(Figure(None, paper=0.9)) == ("After 'paper': its own figure, of another LLM and another split.",)
    assert legend(Figure(0.7, is_noise=True)) == ("≈: the difference from the reference is inside the noise.",)
    assert legend(Figure(0.7, is_noise=True), "DIN") == ("≈: the difference from DIN is inside the noise.",)


def test_a_row_has_one_figure_per_column() -> None:
    with pytest.raises(ValueError, match="table t, row b: 1 figures, 2 columns"):
        Table("t", "T", "", ("AUC", "log loss"), (("a", (Figure(1), Figure(2))), ("b", (Figure(1),))))


@pytest.mark.parametrize("names", [("a", "a"), ("two words",), ("",), ("../up",)])
def test_names_are_addresses(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="names of sections"):
        Document("D", (), tuple(Section(name, "S") for name in names))


def test_a_section_and_its_table_may_share_a_name() -> None:
    table = Table("table2", "T", "", (), ())
    assert Document("D", (), (Section("table2", "S", tables=(table,)),)).sections[0].tables == (table,)
    with pytest.raises(ValueError, match="table2"):
        Document("D", (), (Section("a", "S", tables=(table,)), Section("b", "S", tables=(table,))))
