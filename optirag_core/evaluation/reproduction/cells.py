"""The cells that each part of the experiments is made of, and what the LLM has to do for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optirag_core.config.reproduction import Part
from optirag_core.config.settings import Settings
from optirag_core.evaluation.reproduction.tables import FROZEN, MAIN, PRUNED, SIMILAR
from optirag_core.evaluation.reproduction.variants import FM, LAST, NONE, SMALLER, TEXT, WEIGHTED

RETRIEVAL, RATES, LLM_RATES = "retrieval", "rates", "rates of LLMs"
CELLS: Mapping[Part, Sequence[str]] = {
    "table2": (MAIN, NONE, TEXT),
    "table3": (MAIN, LAST, WEIGHTED),
    "table4": (MAIN, NONE, RATES),
    "table5": (MAIN, FM),
    "table9": (MAIN, PRUNED, SMALLER, LLM_RATES),
    "figure3": (RETRIEVAL,),
    "figure4": (MAIN,),
    "figure6": (MAIN, SIMILAR),
    "ours": (MAIN, FROZEN),
}
"""What the parts are made of; the others need no cell."""
OTHER_PROMPTS = (NONE, TEXT, LAST, WEIGHTED, FM)
"""Cells whose prompts have other similar users than the run's: those that `reproduce.tune` is about."""


@dataclass(frozen=True)
class LlmWork:
    """What is left to the LLM beside the run itself and the cells that are timed."""

    num_tuned: int  # LLMs of its shape, tuned on other prompts and run on all that are labelled
    smaller: bool  # table 9's, too
    passes: Sequence[int]  # over the test users' prompts: similar users in each


def cells_of(settings: Settings) -> list[str]:
    """Names of those that `reproduce.parts` needs, each once."""
    return list(dict.fromkeys(name for part in settings.reproduce.parts for name in CELLS.get(part, ())))


def llm_work(settings: Settings) -> LlmWork:
    """Of a study of which nothing is there."""
    names, most = cells_of(settings), settings.prompt.num_similar_users
    others = [name for name in OTHER_PROMPTS if name in names]
    each = settings.reproduce.tune == "each"
    passes = [] if each else [0 if name == NONE else most for name in others]
    passes += [most for name in (PRUNED, FROZEN) if name in names]
    if SIMILAR in names:
        passes += settings.reproduce.num_similar_users
    return LlmWork(len(others) if each else 0, SMALLER in names, passes)
