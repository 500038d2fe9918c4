"""Slow, obvious versions that the fast ones are tested against.

Shapes: T tokens, V vocabulary, D model width, N layers, R rows (pairs) of a padded batch, m window.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from optirag_core.engine.cost import Cost, ModelShape
from optirag_core.engine.criterion import should_exit, window_values
from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.heads import AnswerHead, EvidenceHead, ExitHeads, p_yes
from optirag_core.engine.policy import ExitPolicy

Evidence = Sequence[float] | None


def full_softmax(
    model: PreTrainedModel, head: AnswerHead, answer_ids: Sequence[int], hidden: Tensor, evidence: Evidence = None
) -> Tensor:
    """p over the whole vocabulary [V] of a hidden state [D]; `head` replaces the answer rows and the final norm."""
    weight = model.lm_head.weight.detach().clone().float()  # [V, D]
    weight[list(answer_ids)] = head.weight.detach()
    logits = weight @ head.norm(hidden)
    if evidence is not None:
        logits[answer_ids[0]] += evidence_logit(head.evidence, evidence)
    return torch.softmax(logits, dim=-1)


def evidence_logit(head: EvidenceHead, evidence: Sequence[float]) -> float:
    """v . c + b, number by number."""
    return sum(v * c for v, c in zip(head.weight.tolist(), evidence, strict=True)) + head.bias.item()


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
def head_views(
    model: PreTrainedModel, heads: ExitHeads, policy: ExitPolicy, answer_ids: Sequence[int], prompt: Sequence[int],
    evidence: Evidence = None,
) -> list[tuple[int, float, float]]:  # fmt: skip
    """Layer, discrepancy and p(yes) of every exit head (algorithm 2 line by line), then those of the LLM's own head."""
    states = hidden_states(model, prompt)
    yes, no = answer_ids
    views = []
    for layer in heads.layers:
        tracked = []
        for hidden in states[layer - policy.window : layer + 1]:
            p = full_softmax(model, heads[layer], answer_ids, hidden, evidence)
            ratio = p[yes] / p[no]
            tracked.append((ratio if policy.criterion == "ratio" else ratio / (1 + ratio)).item())
        deltas = [abs(tracked[i] - tracked[i + 1]) for i in range(policy.window)]
        mean = sum(deltas[:-1]) / (policy.window - 1)
        views.append((layer, abs(deltas[-1] - mean), (p[yes] / (p[yes] + p[no])).item()))
    num_layers = len(model.model.layers)
    p = full_softmax(model, heads[num_layers], answer_ids, states[-1], evidence)
    return [*views, (num_layers, 0.0, (p[yes] / (p[yes] + p[no])).item())]


def score_pair(
    model: PreTrainedModel, heads: ExitHeads, policy: ExitPolicy, answer_ids: Sequence[int], prompt: Sequence[int],
    evidence: Evidence = None,
) -> PairScore:  # fmt: skip
    """One prompt, stopped at the first stable head."""
    *exits, (num_layers, _, last) = head_views(model, heads, policy, answer_ids, prompt, evidence)
    for layer, discrepancy, score in exits:
        if policy.criterion != "none" and discrepancy < policy.threshold:
            return PairScore(score, layer)
    return PairScore(last, num_layers)


class PlainScorer:
    """The engine's plain form: every pair is a padded row of its own, and rows leave the batch when they exit."""

    def __init__(
        self, model: PreTrainedModel, heads: ExitHeads, policy: ExitPolicy, *, batch_size: int = 32,
        layers: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        self._decoder = model.model
        self._heads = heads
        self._layers = heads.layers if layers is None else layers
        self._policy = policy
        self._batch_size = batch_size

    @torch.inference_mode()
    def score(self, groups: Sequence[UserGroup]) -> list[list[PairScore]]:
        prompts = [[*group.prefix, *suffix] for group in groups for suffix in group.suffixes]
        evidence = torch.tensor([row for group in groups for row in group.evidence or ()])  # [all pairs, F], or empty
        scores: list[PairScore] = []
        for start in range(0, len(prompts), self._batch_size):
            batch = slice(start, start + self._batch_size)
            scores += self._score_batch(prompts[batch], evidence[batch])
        flat = iter(scores)
        return [[next(flat) for _ in group.suffixes] for group in groups]

    def _score_batch(self, prompts: Sequence[Sequence[int]], evidence: Tensor) -> list[PairScore]:
        results: dict[int, PairScore] = {}
        alive = torch.arange(len(prompts))  # [R]
        last = torch.tensor([len(prompt) - 1 for prompt in prompts])  # [R]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True)
        hidden = self._decoder.embed_tokens(ids)  # [R, T, D]
        rotary = self._decoder.rotary_emb(hidden, position_ids=torch.arange(ids.shape[1])[None])
        states = [hidden[torch.arange(len(last)), last]]  # h^(0) ..., [R, D] each
        for number, layer in enumerate(self._decoder.layers, start=1):
            # Padding stands behind the prompt, so the causal mask alone keeps it from being seen.
            hidden = layer(hidden, attention_mask=None, position_embeddings=rotary)
            states.append(hidden[torch.arange(len(last)), last])
            if number not in self._layers or not len(alive):
                continue
            window = torch.stack(states[-self._policy.window - 1 :], dim=1)  # [R, m+1, D]
            logits = self._heads[number](window, evidence)  # [R, m+1, 2]
            values = window_values(logits, self._policy.criterion)
            exits = should_exit(values, self._policy.threshold, self._policy.criterion)  # [R]
            for pair, score in zip(alive[exits].tolist(), p_yes(logits[exits, -1]).tolist(), strict=True):
                results[pair] = PairScore(score, number)
            alive, last, hidden = alive[~exits], last[~exits], hidden[~exits]  # [R] -> [R']
            evidence = evidence[~exits] if len(evidence) else evidence
            states = [state[~exits] for state in states]
        number = len(self._decoder.layers)
        for pair, score in zip(alive.tolist(), p_yes(self._heads[number](states[-1], evidence)).tolist(), strict=True):
            results[pair] = PairScore(score, number)
        return [results[pair] for pair in range(len(prompts))]


def group_cost(
    shape: ModelShape,
    prefix: int,
    suffixes: Sequence[int],
    exit_layers: Sequence[int],
    *,
    frozen_prefix_after: int | None = None,
) -> Cost:
    """The cost of one packed group.

    Args:
        prefix: P.
        suffixes: [n] S of each.
        exit_layers: [n] 1-based; the number of layers for a pair that did not exit, 0 for one that was not run.
    """
    ran = [(tokens, layer) for tokens, layer in zip(suffixes, exit_layers, strict=True) if layer]
    if not ran:
        return Cost()
    deepest = max(layer for _, layer in ran)
    above = 0 if frozen_prefix_after is None else max(0, deepest - 1 - frozen_prefix_after)
    whole = deepest - 1 - above  # layers that the prefix goes through
    token_layers = prefix * whole
    key_value_tokens = prefix * (above + 1)
    attention = 2 * shape.query_width * prefix**2 * whole
    for tokens, layer in ran:
        token_layers += tokens * (layer - 1) + 1
        key_value_tokens += tokens - 1
        attention += 4 * shape.query_width * (tokens * (prefix + tokens / 2) * (layer - 1) + prefix + tokens)
    linear = shape.layer_flops * token_layers + shape.key_value_flops * key_value_tokens
    return Cost(
        linear_flops=linear,
        attention_flops=attention,
        token_layers=token_layers,
        frozen_token_layers=prefix * above,
        prefixes=1,
        prefix_layers=deepest,
    )
