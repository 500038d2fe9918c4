"""Slow, obvious versions that the fast ones are tested against.

Shapes: T tokens, V vocabulary, D model width, N layers, m window.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from optirag_core.engine.groups import PairScore
from optirag_core.engine.heads import AnswerHead, ExitHeads
from optirag_core.engine.policy import ExitPolicy


def full_softmax(model: PreTrainedModel, head: AnswerHead | None, answer_ids: Sequence[int], hidden: Tensor) -> Tensor:
    """p over the whole vocabulary [V] of a hidden state [D]; `head` replaces the answer rows and the final norm."""
    weight = model.lm_head.weight.detach().clone().float()  # [V, D]
    norm = model.model.norm
    if head is not None:
        weight[list(answer_ids)] = head.weight.detach()
        norm = head.norm
    return torch.softmax(weight @ norm(hidden), dim=-1)


@torch.no_grad()
def hidden_states(model: PreTrainedModel, prompt: Sequence[int]) -> list[Tensor]:
    """The last token's h^(0) ... h^(N), each [D], before any final norm."""
    states: list[Tensor] = []
    hooks = [model.model.layers[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0][0, -1]))]
    for layer in model.model.layers:
        hooks.append(layer.register_forward_hook(lambda *call: states.append(call[2][0, -1])))
    model.model(input_ids=torch.tensor([list(prompt)]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return states


@torch.no_grad()
def score_pair(
    model: PreTrainedModel, heads: ExitHeads, policy: ExitPolicy, answer_ids: Sequence[int], prompt: Sequence[int]
) -> PairScore:
    """Algorithm 2 line by line, on one prompt, with a softmax over the whole vocabulary."""
    states = hidden_states(model, prompt)
    yes, no = answer_ids
    for layer in heads.layers:
        tracked = []
        for hidden in states[layer - policy.window : layer + 1]:
            p = full_softmax(model, heads[layer], answer_ids, hidden)
            ratio = p[yes] / p[no]
            tracked.append((ratio if policy.criterion == "ratio" else ratio / (1 + ratio)).item())
        deltas = [abs(tracked[i] - tracked[i + 1]) for i in range(policy.window)]
        mean = sum(deltas[:-1]) / (policy.window - 1)
        if policy.criterion != "none" and abs(deltas[-1] - mean) < policy.threshold:
            return PairScore((p[yes] / (p[yes] + p[no])).item(), layer)
    p = full_softmax(model, None, answer_ids, states[-1])
    return PairScore((p[yes] / (p[yes] + p[no])).item(), len(model.model.layers))
