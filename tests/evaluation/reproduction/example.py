"""A document with every kind of cell, table and plot; its figures are made up."""

from math import exp, log

from optirag_core.evaluation.metrics import CalibrationBin
from optirag_core.evaluation.reproduction import plotted
from optirag_core.evaluation.reproduction.document import Document, Figure, Picture, Section, Table
from optirag_core.evaluation.reproduction.plots.bars import draw_exit_layers, draw_times
from optirag_core.evaluation.reproduction.plots.curves import Step, draw_by_layer, draw_reliability, draw_sweep
from optirag_core.evaluation.reproduction.plots.marks import Words
from optirag_core.evaluation.reproduction.plots.pareto import Choice, draw_pareto
from optirag_core.evaluation.reproduction.plots.slices import Row, draw_slices

MODELS = {
    "DeepFM": 0.7012, "DIN": 0.7120, "GRU4Rec": 0.6841, "AutoInt": 0.7044, "DCNv2": 0.7101, "WuKong": 0.7150,
    "GDCN": 0.7098, "EulerNet": 0.7077, "TALLRec": 0.6544, "LLM-retriever": 0.6733, "GCN-retriever": 0.7311,
    "OptiRAG-Rec": 0.7304,
}  # fmt: skip
LAYERS = (0, 2, 4, 6)


def near(value: float, half: float = 0.012, **fields: float | bool | int) -> Figure:
    return Figure(value, value - half, value + half, **fields)


def document() -> Document:
    return Document(
        "BookCrossing with a small Llama",
        (
            "Data: BookCrossing, explicit ratings; a book is liked when its rating is above 7. The publisher gives no "
            "time: the order is a seeded shuffle, the last 10 % of each user's ratings are the test split.",
            "LLM: a Llama of 6 layers and 1.7 M parameters, trained from scratch on the training users. It says "
            "nothing about Vicuna-7B, which the paper uses.",
        ),
        (audit(), statistics(), comparison(), ablation(), figures_of_the_paper(), ours()),
        {"dataset": "ab" * 32, "seed": "0, 1, 2", "command": "python -m ray_jobs.reproduce --config bookcrossing.yaml"},
    )


def audit() -> Section:
    rows = {
        "Interactions of the test split in the graph": (104_336, 0),
        "Prompt entries at or after their as_of": (1_913_402, 0),
        "Target pairs in their own prompt": (52_168, 3),
        "AUC of shuffled labels": (52_168, None),
    }
    cells = tuple(
        (
            name,
            (
                Figure(checked, digits=0),
                Figure(found, digits=0, is_failure=bool(found))
                if found is not None
                else Figure(0.5012, 0.4931, 0.5090),
                Figure(None, text="Three pairs are their own history: see the log" if found else "as it should be"),
            ),
        )
        for name, (checked, found) in rows.items()
    )
    table = Table("audit", "Leak audit", "Counts checked, and found.", ("Checked", "Found", "Remark"), cells, "Check")
    return Section("audit", "Leak audit", ("Nothing learns from the test split.",), (table,))


def statistics() -> Section:
    names = ("Users", "Items", "Interactions", "Samples", "Liked, %", "Interactions per user")
    values = ((6_851, 9_085, 115_219, 78_902, 59.81, 16.82), (77_805, 185_973, 433_671, 301_442, 63.02, 5.57))
    papers = ((6_853, 9_085, 115_219, None, None, None), (None,) * 6)
    digits = (0, 0, 0, 0, 2, 2)
    rows = tuple(
        (name, tuple(Figure(v, digits=d, paper=p) for v, d, p in zip(row, digits, paper, strict=True)))
        for name, row, paper in zip(("After filters", "As published"), values, papers, strict=True)
    )
    table = Table("table1", "Table 1: data set", "BookCrossing after each step.", names, rows, "State")
    return Section("table1", "Table 1: data set statistics", tables=(table,))


def comparison() -> Section:
    rows = tuple(
        (
            name,
            (
                near(auc, paper=auc + 0.12, is_noise=abs(auc - 0.7304) < 0.013 and name != "OptiRAG-Rec"),
                near(0.98 - auc / 2, 0.006, paper=0.5),
                near(auc - 0.04),
                Figure(0.0004 if auc < 0.7 else 0.2, digits=4),
                Figure(1.2e6, digits=0, text="1.2 M"),
                Figure(None, text="full" if name < "O" else "8 % of it"),
            ),
        )
        for name, auc in MODELS.items()
    )
    caption = "All models see the same samples, features and split."
    columns = ("AUC", "Log loss", "Per-user AUC", "p (Holm)", "Parameters", "Training data")
    table = Table(
        "table2", "Table 2: models", caption, columns, rows, "Model", ours=("OptiRAG-Rec",), reference="OptiRAG-Rec"
    )
    missing = Table(
        "table9", "Table 9: smaller models", "Not run.", ("AUC",), (("TinyLlama", (Figure(None, paper=0.8123),)),)
    )
    return Section("table2", "Table 2: against other models", ("Twelve models, three seeds.",), (table, missing))


def ablation() -> Section:
    columns = tuple(f"{what}, {part}" for part in ("test", "cold", "warm", "seed 1") for what in ("AUC", "pairs/s"))
    rows = tuple(
        (
            name,
            tuple(
                near(value, is_noise=at == 6) if at % 2 == 0 else near(120 / value, 8.0, digits=1) for at in range(8)
            ),
        )
        for name, value in (("Neither", 0.65), ("Retriever only", 0.72), ("Exit only", 0.64), ("Full", 0.73))
    )
    table = Table("table4", "Table 4: parts", "Whole path.", columns, rows, "Parts", ours=("Full",))
    return Section("table4", "Table 4: parts of the method", tables=(table,))


def figures_of_the_paper() -> Section:
    return Section("figures", "Figures 3, 4 and 6", ("Sweeps replay a trace.",), pictures=tuple(paper_pictures()))


def paper_pictures() -> list[Picture]:
    heads = {
        "depth-varying": {layer: near(0.62 + 0.02 * layer) for layer in LAYERS},
        "one rate": {layer: near(0.618 + 0.02 * layer) for layer in LAYERS},
    }
    users = [Step(n, near(0.65 + 0.02 * log(1 + n)), near(410 - 30 * n, 12, digits=1)) for n in range(9)]
    taus = (0.005, 0.01, 0.02, 0.05, 0.1)
    thresholds = {
        name: [Step(tau, near(0.73 - 0.3 * tau - gap), near(300 + 2000 * tau, 20)) for tau in taus]
        for name, gap in (("ratio", 0.0), ("probability", 0.004))
    }
    windows = [Step(m, near(0.73 - 0.001 * m), Figure(320 - 10 * m)) for m in (2, 3, 4, 5)]
    drawn = [
        draw_times(
            Words("figure3", "Figure 3: retrieval time", "Finding 4 similar users for every test user, one core."),
            {"6,851 users": {"GCN": 0.84, "LLM": 311.0}, "77,805 users": {"GCN": 6.1, "LLM": 3508.2}},
        ),
        draw_by_layer(Words("figure4", "Figure 4: learning rates", "AUC of each layer's head."), heads),
        draw_sweep(Words("figure6a", "Figure 6a: similar users", "The same users for all."), {"AUC": users},
                   setting="similar users", chosen=4),
        draw_sweep(Words("figure6b", "Figure 6b: thresholds", "Replayed."), thresholds, setting="threshold", log=True,
                   chosen=0.01),
        draw_sweep(Words("figure6c", "Figure 6c: windows", "Replayed."), {"AUC": windows}, setting="window, layers"),
    ]  # fmt: skip
    return [picture for picture in drawn if picture is not None]


def ours() -> Section:
    return Section("ours", "Beyond the paper", ("What an exit costs and saves.",), pictures=tuple(our_pictures()))


def our_pictures() -> list[Picture]:
    families = {
        name: [
            Choice(f"{name} {step}", 0.3 + 0.06 * step, near(0.735 - drop * exp(-0.45 * step), 0.004))
            for step in range(12)
        ]
        for name, drop in (("ratio", 0.03), ("probability", 0.036), ("confidence", 0.026), ("entropy", 0.09))
    }
    bins = {
        name: [CalibrationBin(at / 10, (at / 10) ** power, 100) for at in range(1, 10)]
        for name, power in (("LLM", 1.4), ("evidence", 0.9), ("both", 1.05))
    }
    lengths = [
        Row(name, pairs, {"both": near(auc, 900 / pairs), "evidence": near(auc - 0.01, 950 / pairs)})
        for name, pairs, auc in (("3-5", 12_411, 0.69), ("6-14", 20_122, 0.72), ("15 and more", 19_635, 0.76))
    ]
    cold = [Row("cold start", 8_120, {"both": near(0.66)}), Row("known", 44_048, {"both": near(0.74)})]
    exits = {"certified": {0: 312, 2: 18_000, 4: 9_120, 6: 24_736}}
    two = exits | {"paper's": {2: 3_000, 4: 21_120, 6: 28_048}}
    heads = {"trained heads": {layer: near(0.62 + 0.02 * layer) for layer in LAYERS}}
    reliability = Words("reliability", "Reliability", "All test pairs.")
    drawn = [
        draw_pareto(Words("pareto", "Accuracy against cost", "On the test users."), families, chosen="ratio 5"),
        *plotted.drawn(draw_reliability(reliability, bins), plotted.reliability(reliability, bins)),
        draw_slices(Words("lengths", "AUC by history length", "Test pairs."), lengths, by="earlier interactions"),
        draw_slices(Words("cold", "AUC by cold start", "Test pairs."), cold, by="user"),
        draw_exit_layers(Words("exits", "Where pairs stop", "All test pairs."), exits),
        draw_exit_layers(Words("exits2", "Where pairs stop, two policies", "All test pairs."), two),
        draw_by_layer(Words("heads", "AUC by layer", "Each head alone."), heads),
    ]
    return [picture for picture in drawn if picture is not None]
