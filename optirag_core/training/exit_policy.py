"""The cheapest exit policy that is certified to cost little: Pareto testing on a trace of labelled pairs.

Some of the users find an order (arXiv:2210.07913): of all policies those that no other beats in FLOPs and safety, from
the safest to the cheapest. The others test them in that order until the first one fails (Learn then Test,
arXiv:2110.01052), and the last that passed is chosen. No part of the LLM runs.

Shapes: R pairs, U users.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optirag_core.config.exits import CalibrationSettings
from optirag_core.engine.certificate import NORMAL, OVERLOAD, Calibration, Candidate
from optirag_core.engine.policy import Choice
from optirag_core.engine.trace import Trace
from optirag_core.errors import ConfigError, DataError
from optirag_core.training.exit_losses import PolicyResult, TracedUsers
from optirag_core.training.learn_then_test import fixed_sequence, p_value, pareto_order, upper_bound
from optirag_core.training.policy_grid import full_depth, policy_grid

LEARNING_SHARE = 0.3
"""Of the users. Tests want more users than orders do: on simulated traces of 3,000 users the chosen policies cost 0.72
of full depth's FLOPs with a share of 0.5, 0.41 with 0.35 and 0.36 with 0.25."""


def calibrate(
    traces: Mapping[int | None, Trace],
    labels: np.ndarray,
    users: np.ndarray,
    settings: CalibrationSettings,
    *,
    seed: int,
) -> dict[str, Calibration]:
    """Choose the exit policy that scores, and a cheaper one for busy times where `settings.overload_epsilon` is set.

    Args:
        traces: frozen_prefix_after -> trace of the same pairs made with it; None is the one that others are compared
            with.
        labels: [R] 1 liked, 0 not liked.
        users: [R] whose pair it is; the pairs of a user group are one user's.
        seed: divides the users and orders them.

    Returns:
        By name: `NORMAL`, and `OVERLOAD` where the looser bound certifies a policy that is cheaper. Each certificate
        holds with confidence 1 - delta for itself.

    Raises:
        ConfigError: there is no trace without a frozen prefix.
        DataError: labels, users and traces do not fit each other.
    """
    labels, ranks = _checked(traces, labels, users, seed)
    if ranks.max(initial=0) < 1:  # one half of the users would be empty
        return {NORMAL: _untested(traces, labels, users, settings)}
    num_learning = math.ceil(LEARNING_SHARE * (ranks.max() + 1))
    learning = TracedUsers.of(traces, labels, ranks, ranks < num_learning)
    certifying = TracedUsers.of(traces, labels, ranks, ranks >= num_learning)
    choices = [full_depth(traces[None]), *policy_grid(settings, learning.traces)]
    order = _order([learning.run(choice) for choice in choices])
    results = [certifying.run(choice) for choice in choices]
    tests = _Tests(choices, order, results, certifying, _digest(traces, labels, users))
    normal = tests.calibration(settings.epsilon, settings.delta)
    if settings.overload_epsilon is None:
        return {NORMAL: normal}
    loose = tests.calibration(settings.overload_epsilon, settings.delta)
    is_cheaper = loose.certified.flops_share < normal.certified.flops_share
    return {NORMAL: normal, OVERLOAD: loose} if is_cheaper else {NORMAL: normal}


def evidence_alone(
    traces: Mapping[int | None, Trace], labels: np.ndarray, users: np.ndarray, settings: CalibrationSettings
) -> Calibration:
    """No layer for any pair: for heads that say the same at full depth (`ExitHeads.only_evidence`).

    It changes no answer, which needs no test and no users. Arguments as of `calibrate`.
    """
    everything, no_layers = full_depth(traces[None])
    policy = replace(everything, evidence_confidence=0.5)
    free = Candidate(
        policy, no_layers, flops_share=0.0, mean_exit_layer=0.0, excess_loss=0.0, auc_difference=None, accepted=True
    )
    return _untested(traces, labels, users, settings, [free])


def _untested(
    traces: Mapping[int | None, Trace],
    labels: np.ndarray,
    users: np.ndarray,
    settings: CalibrationSettings,
    others: Sequence[Candidate] = (),
) -> Calibration:
    """Full depth, or the last of others that need no test either."""
    trace = traces[None]
    everything = Candidate(
        *full_depth(trace), flops_share=1.0, mean_exit_layer=float(trace.shape.num_layers), excess_loss=0.0,
        auc_difference=None, accepted=True,
    )  # fmt: skip
    return Calibration(
        settings.epsilon, settings.delta, num_users=0, num_pairs=0, chosen=len(others), upper_bound=0.0,
        data=_digest(traces, labels, users), candidates=(everything, *others),
    )  # fmt: skip


@dataclass(frozen=True)
class _Tests:
    """All choices on the users that certify, and the order in which they are tested for any bound."""

    choices: Sequence[Choice]  # full depth first
    order: Sequence[int]  # numbers of choices
    results: Sequence[PolicyResult]
    users: TracedUsers
    data: str

    def calibration(self, epsilon: float, delta: float) -> Calibration:
        """What passes for a bound."""
        p_values = {number: p_value(self.results[number].losses, epsilon, delta) for number in self.order}
        accepted = self.order[: fixed_sequence(list(p_values.values()), delta)]
        chosen = accepted[-1] if accepted else 0
        return Calibration(
            epsilon=epsilon,
            delta=delta,
            num_users=len(self.results[0].losses),
            num_pairs=len(self.users.labels),
            chosen=chosen,
            upper_bound=upper_bound(self.results[chosen].losses, delta) if chosen else 0.0,
            data=self.data,
            candidates=tuple(
                self._candidate(number, p_values.get(number), accepted=number in (0, *accepted))
                for number in range(len(self.choices))
            ),
        )

    def _candidate(self, number: int, p: float | None, *, accepted: bool) -> Candidate:
        result = self.results[number]
        ranked = number == 0 or p is not None
        return Candidate(
            *self.choices[number],
            flops_share=result.flops / self.results[0].flops,
            mean_exit_layer=result.mean_exit_layer,
            excess_loss=float(result.losses.mean()),
            auc_difference=self.users.auc_difference(result.scores) if ranked else None,
            p_value=p,
            accepted=accepted,
        )


def _order(results: Sequence[PolicyResult]) -> list[int]:
    """Numbers of the choices to test, from the safest to the cheapest; what saves nothing is not worth a test."""
    cheaper = np.array([number for number, each in enumerate(results) if each.flops < results[0].flops], dtype=int)
    costs = np.array([results[number].flops for number in cheaper])
    risks = np.array([_risk(results[number].losses) for number in cheaper])
    return cheaper[pareto_order(costs, risks)].tolist()


def _risk(losses: np.ndarray) -> float:
    """How doubtful a policy is that lost this [U]; any order is valid, a good one fails late.

    Not the p-value, as Pareto testing has it: of thousands of policies the one with the least p is the luckiest, fails
    on other users and ends the sequence at its start. A gain counts as nothing, two standard errors are added: on six
    kinds of simulated traces the policies chosen so cost 0.69 of full depth's FLOPs on average, by p-value 0.76.
    """
    return max(losses.mean(), 0.0) + 2.0 * losses.std() / math.sqrt(len(losses))


def _checked(
    traces: Mapping[int | None, Trace], labels: np.ndarray, users: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [R], and the place of each pair's user [R] in a random order.

    The order is drawn: an order of ids may know how old an account is, and with it what its pairs lose.
    """
    if None not in traces:
        raise ConfigError(
            f"traces with frozen prefixes {list(traces)} only: trace without one as well, to compare with"
        )
    labels = np.asarray(labels)
    lengths = {len(trace.user_groups) for trace in traces.values()} | {len(labels), len(users)}
    if len(lengths) > 1:
        raise DataError(f"got {sorted(lengths)} labels, users and traced pairs, expected one of each per pair")
    groups = traces[None].user_groups.numpy()
    names, numbers = np.unique(np.asarray(users), return_inverse=True)
    if len(set(zip(groups.tolist(), numbers.tolist(), strict=True))) > len(set(groups.tolist())):
        raise DataError("a user group holds pairs of several users, expected one user for each group")
    return labels, np.random.default_rng(seed).permutation(len(names))[numbers]


def _digest(traces: Mapping[int | None, Trace], labels: np.ndarray, users: np.ndarray) -> str:
    """sha256 of all that the choice depends on beside the settings."""
    digest = hashlib.sha256(json.dumps([list(map(str, users)), labels.tolist()]).encode())
    for frozen, trace in traces.items():
        digest.update(f"{frozen} {trace.layers} {trace.sizes}".encode())
        for tensor in (trace.logits, trace.final_logits, trace.evidence_logits):
            digest.update(b"" if tensor is None else tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
