"""What each part of a finished run is worth: variants of the answer heads, trained anew on its hidden states.

    python -m benchmarks.ablation --config FILE [--data DIR] --workspace DIR --out benchmarks/results/FILE.json

The LLM does not run: all variants read the run's `exit_features`, learn from the heads' users and are measured on the
test users at full depth, each beside the evidence alone on the same pairs. For two of them an exit policy is certified
on the policy's users, and what it costs and saves is counted at the test users, whose exits follow from their states.
Controls: hidden states or evidence that are dealt out among the pairs at random must add nothing.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.hardware import commit, hardware, portable
from optirag_core.config.settings import Settings
from optirag_core.engine.certificate import NORMAL
from optirag_core.engine.heads import ExitHeads, p_yes
from optirag_core.engine.loading import load_answer_ids, load_llm
from optirag_core.engine.trace import Trace
from optirag_core.evaluation.bootstrap import bootstrap_auc_difference, bootstrap_mean_difference
from optirag_core.evaluation.metrics import answer_losses, binary_metrics
from optirag_core.inference.opening import open_artifacts
from optirag_core.inference.parts import untrained_heads
from optirag_core.training.exit_features import ExitFeatures, read_features, read_traces
from optirag_core.training.exit_heads import HeadSamples, Vocabulary, head_logit, train_exit_heads
from optirag_core.training.exit_policy import calibrate
from optirag_core.training.policy_grid import full_depth
from ray_jobs.command import parse
from ray_jobs.train_exit_heads import PARENTS

Change = Callable[[ExitFeatures], ExitFeatures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given, rest = parser.parse_known_args()
    settings, _ = parse(rest)
    torch.set_num_threads(settings.training.exit_heads.torch_threads)
    variants = Variants(settings)
    result = {
        "command": " ".join(["python -m benchmarks.ablation", *portable(sys.argv[1:])]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware("cpu"),
        "seed": settings.seed,
        "evidence_in_prompt": settings.evidence.prompt,
        "pairs": len(variants.test.labels),
        "evidence alone": variants.alone,
        "variants": {
            "LLM alone (the paper's form)": variants.measured(evidence=False, exits=True),
            "both": variants.measured(exits=True),
            "both, single head": variants.measured(single_head=True),
            "both, loss over the vocabulary": variants.measured(loss="vocabulary"),
            "control: hidden states shuffled": variants.measured(change=variants.states_shuffled),
            "control: evidence shuffled": variants.measured(change=variants.evidence_shuffled),
        },
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


class Variants:
    """A run's features, and heads that are trained on them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._artifacts = open_artifacts(settings, *PARENTS)
        self._folder = folder = self._artifacts["exit_features"].path
        self.model, _ = load_llm(self._artifacts["llm"].path)
        self._train = {split: read_features(folder, "heads", split) for split in ("tune", "validation")}
        self.test = read_features(folder, "test")
        heads = self._heads(evidence=True)
        self._alone = _scores(heads, self.test, 0)
        self.alone = vars(binary_metrics(self.test.labels.numpy().astype(int), self._alone))

    def states_shuffled(self, features: ExitFeatures) -> ExitFeatures:
        """Every pair reads the hidden states of another one."""
        states = features.states
        return replace(features, states=replace(states, states=states.states[self._deal(features)]))

    def evidence_shuffled(self, features: ExitFeatures) -> ExitFeatures:
        """Every pair reads the evidence of another one."""
        return replace(features, evidence=features.evidence[self._deal(features)])

    def measured(
        self, *, evidence: bool = True, single_head: bool = False, loss: str = "answers",
        change: Change = lambda features: features, exits: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Test figures of one variant at full depth and of each of its heads."""
        heads, settings = self._heads(evidence=evidence), self._settings
        train, validation = (HeadSamples.of(change(self._train[split]), heads) for split in ("tune", "validation"))
        whole = Vocabulary(self.model.lm_head.weight, load_answer_ids(self._artifacts["llm"].path))
        train_exit_heads(
            heads, train, settings.exit_heads.model_copy(update={"single_head": single_head, "loss": loss}),
            seed=settings.seed, vocabulary=whole if loss == "vocabulary" else None, validation=validation,
        )  # fmt: skip
        test = change(self.test)
        scores = {layer: _scores(heads, test, layer) for layer in (*heads.layers, heads.num_layers)}
        labels, users = test.labels.numpy().astype(int), test.users
        full = scores[heads.num_layers]
        losses = answer_losses(labels, full), answer_losses(labels, self._alone)
        return {
            **vars(binary_metrics(labels, full)),
            "auc_by_layer": {layer: binary_metrics(labels, each).auc for layer, each in scores.items()},
            "auc_less_evidence_alone": bootstrap_auc_difference(labels, full, self._alone, settings.seed, groups=users),
            "log_loss_less_evidence_alone": bootstrap_mean_difference(*losses, settings.seed, groups=users),
            **({"certified exits": self._certified(heads)} if exits else {}),
        }

    def _certified(self, heads: ExitHeads) -> dict[str, Any]:
        """What a policy for these heads saves and costs at the test users, against full depth."""
        window, seed = self._settings.exit_policy.window, self._settings.seed
        features, traces = read_traces(self._folder, heads, window, ())
        labels = features.labels.numpy().astype(int)
        calibration = calibrate(traces, labels, features.users, self._settings.calibration, seed=seed)[NORMAL]
        evidence = self.test.evidence if heads.num_features else None
        trace = Trace.of_states(self.test.states, heads, evidence, window=window)
        policy, layers = calibration.certified.policy, calibration.certified.layers
        stopped, full = trace.outcome(policy, layers), trace.outcome(*full_depth(trace))
        scores = [p_yes(outcome.logits).double().numpy() for outcome in (stopped, full)]
        labels, users = self.test.labels.numpy().astype(int), self.test.users
        losses = [answer_losses(labels, each) for each in scores]
        return {
            "policy": vars(policy) | {"layers": layers},
            "certificate": calibration.statement,
            "auc": binary_metrics(labels, scores[0]).auc,
            "auc_less_full_depth": bootstrap_auc_difference(labels, *scores, seed, groups=users),
            "log_loss_less_full_depth": bootstrap_mean_difference(*losses, seed, groups=users),
            "mean_exit_layer": stopped.exit_layers.double().mean().item(),
            "flops_share": stopped.cost.flops / full.cost.flops,
        }

    def _heads(self, *, evidence: bool) -> ExitHeads:
        reading = self._settings.evidence.model_copy(update={"heads": evidence})
        settings = self._settings.model_copy(update={"evidence": reading})
        return untrained_heads(settings, self._artifacts, self.model)

    def _deal(self, features: ExitFeatures) -> torch.Tensor:
        return torch.randperm(len(features.labels), generator=torch.Generator().manual_seed(self._settings.seed))


@torch.no_grad()
def _scores(heads: ExitHeads, features: ExitFeatures, layer: int) -> np.ndarray:
    return head_logit(heads, layer, HeadSamples.of(features, heads)).double().sigmoid().numpy()


if __name__ == "__main__":
    main()
