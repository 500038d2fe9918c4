"""What an exit policy is calibrated on: full-depth traces of labelled pairs of users that nothing was trained on.

Shapes: R pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from optirag_core.config import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import requests_for
from optirag_core.engine.loading import load_tokenizer
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.trace import Trace
from optirag_core.errors import DataError
from optirag_core.inference.opening import Artifacts
from optirag_core.inference.parts import open_assembler, open_scorer
from optirag_core.prompting.assembly import requests_from

MAX_USERS = 4000
"""2,800 of them certify: 0.002 nats need 1,281 at least (`learn_then_test.MAX_BET`)."""


@dataclass(frozen=True)
class LabelledTraces:
    """What `training.exit_policy.calibrate` takes."""

    traces: Mapping[int | None, Trace]  # by frozen_prefix_after
    labels: np.ndarray  # [R]
    users: list[str]  # [R]


def policy_traces(settings: Settings, artifacts: Artifacts, *, device: str = "cpu") -> LabelledTraces:
    """Run the LLM at full depth over the validation split, once for each frozen prefix.

    Raises:
        DataError: no pair of the validation split can be scored.
    """
    requests = requests_for(Dataset.load(artifacts["dataset"].path).interactions, "validation")
    if len(requests) > MAX_USERS:
        requests = requests.take(np.linspace(0, len(requests) - 1, MAX_USERS, dtype=np.int64))
    assembler, _ = open_assembler(settings.prompt, artifacts, load_tokenizer(artifacts["llm"].path))
    groups, labels, users = [], [], []
    for request, asked, answer in zip(
        requests_from(requests),
        assembler.assemble(requests_from(requests)),
        requests["labels"].to_pylist(),
        strict=True,
    ):
        if asked.prompt is not None:
            known = dict(zip(request.item_ids, answer, strict=True))
            groups.append(asked.prompt.group)
            labels += [known[item_id] for item_id in asked.candidates]
            users += [request.user_id] * len(asked.candidates)
    if not groups:
        raise DataError("no labelled pair to calibrate exits with: raise dataset.split.validation_share")
    traces = {}
    for frozen in dict.fromkeys((None, *settings.calibration.frozen_prefixes)):
        everything = ExitPolicy("none", settings.exit_policy.window, 0.0, frozen_prefix_after=frozen)
        choice = everything, settings.exit_heads.layers
        traces[frozen] = open_scorer(settings, artifacts, choice=choice, device=device).trace(groups)
    return LabelledTraces(traces, np.array(labels), users)
