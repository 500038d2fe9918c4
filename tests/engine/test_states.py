"""Hidden states of the last tokens, and traces made of them."""

import copy

import pytest
import torch

from optirag_core.engine.heads import p_yes
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.engine.states import window_layers
from optirag_core.engine.trace import Trace
from optirag_core.errors import ConfigError
from tests.engine.models import EXIT_LAYERS, random_group, random_heads
from tests.reference import hidden_states

NUM_FEATURES = 3
SIZES = [(30, [5, 2, 5, 1, 8]), (1, []), (60, [3]), (12, [4, 2, 9, 4, 1, 1, 6])]
GROUPS = [random_group(*sizes, seed, num_features=NUM_FEATURES) for seed, sizes in enumerate(SIZES)]
EVIDENCE = torch.tensor([row for group in GROUPS for row in group.evidence])
RATIO = ExitPolicy("ratio", window=3, threshold=0.0)


@pytest.fixture(scope="module")
def informed(model):
    return random_heads(model, num_features=NUM_FEATURES)


@pytest.mark.parametrize(
    ("exit_layers", "window", "num_layers", "layers"),
    [
        ((5, 10), 3, 12, (2, 3, 4, 5, 7, 8, 9, 10, 12)),
        ((3, 4), 3, 5, (0, 1, 2, 3, 4, 5)),
        ((4,), 2, 5, (2, 3, 4, 5)),
    ],
)
def test_layers_of_the_windows(exit_layers, window, num_layers, layers):
    assert window_layers(exit_layers, window, num_layers) == layers


def test_a_window_below_the_embeddings_is_refused():
    with pytest.raises(ConfigError, match="window 4 reads 4 layers back: the first exit layer must be >= 4, got 3"):
        window_layers((5, 3), 4, 7)


def test_out_of_gpu_memory_halves_the_steps_and_loses_nothing(model, informed, monkeypatch):
    scorer = Scorer(model, informed, RATIO, max_tokens_in_flight=300)
    expected = scorer.states(GROUPS, (3, 7))
    advance, limit = scorer._decoder.advance, 75

    def tight(flight, depth):
        if flight.layout.num_tokens > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return advance(flight, depth)

    monkeypatch.setattr(scorer._decoder, "advance", tight)
    came = scorer.states(GROUPS, (3, 7))

    torch.testing.assert_close(came.states, expected.states, atol=1e-4, rtol=0)
    assert torch.equal(came.parts, expected.parts)
    limit = 20
    with pytest.raises(torch.OutOfMemoryError):
        scorer.states(GROUPS, (3, 7))


@pytest.mark.parametrize("max_tokens", [150, 16384])
def test_states_are_those_of_a_plain_forward(model, informed, max_tokens):
    came = Scorer(model, informed, RATIO, max_tokens_in_flight=max_tokens).states(GROUPS, (7, 0, 4, 3))

    assert (came.layers, came.sizes, came.states.dtype) == ((0, 3, 4, 7), (5, 0, 1, 7), torch.float32)
    prompts = [[*group.prefix, *suffix] for group in GROUPS for suffix in group.suffixes]
    for states, prompt in zip(came.states, prompts, strict=True):
        expected = hidden_states(model, prompt)
        torch.testing.assert_close(states, torch.stack([expected[layer] for layer in came.layers]), atol=1e-4, rtol=0)
    assert torch.equal(came.at((4, 0)), came.states[:, [2, 0]])
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    assert torch.equal(came.prefix_tokens + came.suffix_tokens, lengths)
    assert came.parts.unique().tolist() == list(range(int(came.parts.max()) + 1))


def test_nothing_runs_deeper_than_asked(model, informed):
    scorer = Scorer(model, informed, RATIO)
    hook = model.model.layers[3].mlp.register_forward_pre_hook(lambda *_: pytest.fail("layer 4 ran"))
    try:
        assert scorer.states(GROUPS, (3,)).states.shape == (13, 1, 32)
        with pytest.raises(pytest.fail.Exception, match="layer 4 ran"):
            scorer.states(GROUPS, (4,))
    finally:
        hook.remove()


@pytest.mark.parametrize("layers", [(), (3, 8), (-1, 3)])
def test_layers_that_the_llm_lacks_are_refused(model, informed, layers):
    with pytest.raises(ConfigError, match="the LLM has 1 to 7"):
        Scorer(model, informed, RATIO).states(GROUPS, layers)


def test_a_trace_of_states_that_were_not_kept_is_refused(model, informed):
    states = Scorer(model, informed, RATIO).states(GROUPS, (2, 3, 5, 6, 7))
    with pytest.raises(ConfigError, match=r"layers \[0, 1\] were not kept, only of \[2, 3, 5, 6, 7\]"):
        Trace.of_states(states, informed, EVIDENCE, window=3)


def test_heads_can_be_trained_on_states(model):
    states = Scorer(model, random_heads(model), RATIO).states(GROUPS, (5,))
    head = random_heads(model)[5].requires_grad_(True)
    head(states.at((5,))).sum().backward()
    assert head.weight.grad.any()


def test_a_trace_of_states_with_other_heads_is_theirs(model, informed):
    states = Scorer(model, informed, RATIO).states(GROUPS, window_layers(EXIT_LAYERS, 3, 7))
    fewer = random_heads(model, EXIT_LAYERS[1:], num_features=NUM_FEATURES)
    fewer.start_from_evidence(torch.tensor([1.0, 0.0, -1.0]), 0.5)

    came, expected = Trace.of_states(states, fewer, EVIDENCE, window=2), Scorer(model, fewer, RATIO).trace(GROUPS)

    assert came.layers == EXIT_LAYERS[1:]
    torch.testing.assert_close(came.logits, expected.logits[:, :, -3:], atol=1e-6, rtol=0)
    torch.testing.assert_close(came.final_logits, expected.final_logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(came.evidence_logits, expected.evidence_logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer", [*EXIT_LAYERS, 7])
def test_a_head_says_in_a_trace_what_it_says_in_a_live_run(model, informed, layer):
    trace = Scorer(model, informed, RATIO).trace(GROUPS)
    first = copy.copy(informed)
    first.layers = tuple(other for other in EXIT_LAYERS if other >= layer) or EXIT_LAYERS
    policy = ExitPolicy("none" if layer == 7 else "probability", 3, threshold=1e9)  # all stop at the first head
    live = [pair for pairs in Scorer(model, first, policy).score(GROUPS).scores for pair in pairs]

    logits = trace.final_logits if layer == 7 else trace.logits[:, EXIT_LAYERS.index(layer), -1]
    assert {pair.exit_layer for pair in live} == {layer}
    torch.testing.assert_close(p_yes(logits), torch.tensor([pair.score for pair in live]), atol=1e-6, rtol=0)
