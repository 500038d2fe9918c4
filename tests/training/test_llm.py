import pytest
import torch
from sklearn.metrics import roc_auc_score

from optirag_core.config.llm import LoraSettings, ShapeSettings, TuningSettings
from optirag_core.errors import DataError
from optirag_core.training.answers import AnswerLoss, answer_loss, answer_scores
from optirag_core.training.llm import Progress, llama_from_scratch
from optirag_core.training.llm import tune_llm as tune
from tests.conftest import tiny_llama

from .conftest import ANSWERS, NO, YES, prompts_of, random_samples, sample

BATCH_TOKENS = 256
FULL = TuningSettings(batch_tokens=BATCH_TOKENS, learning_rate=3e-3)
LORA = TuningSettings(batch_tokens=BATCH_TOKENS, learning_rate=1e-2)
ADAPTERS = LoraSettings(rank=4, alpha=8, dropout=0.0, modules=("q_proj", "k_proj", "v_proj", "o_proj"))


def planted(number, *, seed):
    """A taste, 10 or 11, stands somewhere in the prefix; candidate 20 pleases the one, candidate 21 the other."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(number):
        length, place, taste = (int(torch.randint(*r, (1,), generator=generator)) for r in ((4, 9), (1, 4), (10, 12)))
        prefix = torch.randint(25, 40, (length,), generator=generator).tolist()
        prefix[place] = taste
        candidates = torch.randint(20, 22, (3,), generator=generator).tolist()
        labels = [int(candidate - taste == 10) for candidate in candidates]
        samples.append(sample(prefix, [[candidate, 2] for candidate in candidates], labels, [place]))
    return samples


def auc(model, samples):
    labels = [label for each in samples for label in each.labels]
    return roc_auc_score(labels, answer_scores(model, samples, ANSWERS, batch_tokens=BATCH_TOKENS))


def tune_llm(*args, **kwargs):
    return tune(*args, **kwargs).llm


def loss_of(model, samples, rating_weight):
    return answer_loss(AnswerLoss(model, ANSWERS), samples, rating_weight=rating_weight)


def learner(seed=0):
    return tiny_llama(seed=seed, num_hidden_layers=2, initializer_range=0.05)


@pytest.mark.parametrize("muon_learning_rate", [None, 0.01])
def test_a_planted_rule_is_learned(muon_learning_rate):
    steps: list[Progress] = []
    settings = FULL.model_copy(update={"epochs": 4, "muon_learning_rate": muon_learning_rate})
    held_out = planted(100, seed=1)
    assert 0.3 < auc(learner(), held_out) < 0.7
    model = tune_llm(learner(), planted(400, seed=0), ANSWERS, settings, seed=0, on_step=steps.append)
    assert auc(model, held_out) > 0.95
    losses = [step.loss for step in steps]
    assert sum(losses[:10]) / 10 > 0.6  # log 2 = 0.69 is a coin
    assert sum(losses[-10:]) / 10 < 0.2
    assert [step.number for step in steps] == list(range(1, steps[0].total + 1))
    assert not model.training


@pytest.mark.parametrize(
    ("settings", "lora"),
    [(FULL, None), (FULL.model_copy(update={"muon_learning_rate": 0.01}), None), (LORA, ADAPTERS)],
)
def test_one_seed_one_result(settings, lora):
    def tuned(seed):
        model = learner()
        torch.seed()  # what else drew random numbers must not count
        tune_llm(model, planted(60, seed=0), ANSWERS, settings, seed=seed, lora=lora)
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    first = tuned(0)
    assert torch.equal(first, tuned(0))
    assert not torch.equal(first, tuned(1))


def test_the_loss_is_that_of_the_answer_among_the_two_words():
    model, samples = tiny_llama(), random_samples(6)
    expected = []
    labels = [label for each in samples for label in each.labels]
    for prompt, label in zip(prompts_of(samples), labels, strict=True):
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1, [NO, YES]]
        expected.append(-torch.log_softmax(logits, dim=0)[label])
    loss = loss_of(model, samples, 0.0)
    torch.testing.assert_close(loss, torch.stack(expected).mean(), atol=1e-5, rtol=1e-5)


def test_the_history_loss_predicts_each_rating_from_what_precedes_it():
    """Ratings 17 at position 2 and 18 at 4 of the first prompt, 19 at 1 of the second: 3 targets, weight 0.5."""
    model = tiny_llama()
    first = sample([1, 4, 17, 5, 18], [[6, 2], [9]], [1, 0], [2, 4])
    second = sample([1, 19, 8], [[6, 2]], [1], [1])
    batch = [first, second]
    before = [([1, 4], 17), ([1, 4, 17, 5], 18), ([1], 19)]
    targets = [-torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1], 0)[t] for ids, t in before]
    added = loss_of(model, batch, 0.5) - loss_of(model, batch, 0.0)
    torch.testing.assert_close(added, 0.5 * torch.stack(targets).mean(), atol=1e-5, rtol=1e-5)


def test_without_shown_ratings_there_is_no_history_loss():
    model, batch = tiny_llama(), [sample([1, 2], [[3]], [1])]
    assert loss_of(model, batch, 1.0) == loss_of(model, batch, 0.0)


def test_scores_are_those_of_separate_prompts_in_order():
    model, samples = tiny_llama(), random_samples(12)
    scores = answer_scores(model, samples, ANSWERS, batch_tokens=40)
    for prompt, score in zip(prompts_of(samples), scores, strict=True):
        p = torch.softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1].detach(), dim=0)
        assert score == pytest.approx((p[YES] / (p[YES] + p[NO])).item(), abs=1e-5)


def test_a_lora_is_merged_into_the_same_shapes():
    """In the last step's callback the LoRA is still beside the weights; afterwards it is inside of them."""
    model, samples = learner(), planted(60, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    probes = random_samples(10, seed=5)
    untuned = answer_scores(model, probes, ANSWERS, batch_tokens=BATCH_TOKENS)
    beside = []

    def on_step(step):
        if step.number == step.total:
            beside.extend(answer_scores(model, probes, ANSWERS, batch_tokens=BATCH_TOKENS))

    tuned = tune_llm(model, samples, ANSWERS, LORA, seed=0, lora=ADAPTERS, on_step=on_step)
    after = tuned.state_dict()
    assert {name: tensor.shape for name, tensor in after.items()} == {n: tensor.shape for n, tensor in before.items()}
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.split(".")[-2] in ("q_proj", "k_proj", "v_proj", "o_proj")}
    assert answer_scores(tuned, probes, ANSWERS, batch_tokens=BATCH_TOKENS) == pytest.approx(beside, abs=1e-5)
    assert max(abs(a - b) for a, b in zip(untuned, beside, strict=True)) > 1e-3


def test_a_lora_learns_the_opposite():
    held_out = planted(100, seed=1)
    model = tune_llm(learner(), planted(400, seed=0), ANSWERS, FULL.model_copy(update={"epochs": 4}), seed=0)
    assert auc(model, held_out) > 0.95
    model = tune_llm(
        model, flipped(planted(400, seed=2)), ANSWERS, LORA.model_copy(update={"epochs": 4}), seed=0, lora=ADAPTERS
    )
    assert auc(model, held_out) < 0.2


@pytest.mark.parametrize("lora", [None, ADAPTERS])
def test_no_samples_is_an_error(lora):
    model = tiny_llama()
    with pytest.raises(DataError, match=r"no training sample for the LLM: lower dataset\.min_history or raise"):
        tune_llm(model, [], ANSWERS, FULL, seed=0, lora=lora)


def test_fewer_batches_than_a_step_takes_is_an_error():
    settings = FULL.model_copy(update={"batches_per_step": 2})
    with pytest.raises(DataError, match="too few batches for one step of 2: lower batch_tokens"):
        tune_llm(tiny_llama(), planted(2, seed=0), ANSWERS, settings, seed=0)


def test_a_step_starts_without_the_gradients_of_the_one_before():
    model, left = learner(), []

    def on_step(_):
        left.extend(parameter.grad for parameter in model.parameters() if parameter.grad is not None)

    tune_llm(model, planted(30, seed=0), ANSWERS, FULL, seed=0, on_step=on_step)
    assert not any(gradient.any() for gradient in left)


def test_steps_are_those_of_all_epochs_up_to_the_limit():
    def num_steps(**changes):
        steps = []
        settings = FULL.model_copy(update={"batch_tokens": 60, **changes})
        tune_llm(tiny_llama(), planted(30, seed=0), ANSWERS, settings, seed=0, on_step=steps.append)
        assert {step.total for step in steps} == {len(steps)}
        return len(steps)

    one = num_steps(epochs=1)
    assert num_steps(epochs=2) > 1.5 * one
    assert num_steps(epochs=2, max_steps=3) == 3


def test_samples_without_similar_users_come_first():
    settings = FULL.model_copy(update={"cold_start_epochs": 1, "max_steps": 1})

    def tuned(samples):
        model = tune_llm(learner(), samples, ANSWERS, settings, seed=0, cold_start_samples=planted(9, seed=1))
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    assert torch.equal(tuned(planted(9, seed=2)), tuned(planted(9, seed=3)))


def test_a_model_from_scratch_fits_its_tokenizer(byte_tokenizer):
    shape = ShapeSettings(hidden_size=16, intermediate_size=24, num_layers=3, num_heads=2)
    model = llama_from_scratch(shape, byte_tokenizer, max_tokens=77, seed=0)
    assert model.get_input_embeddings().weight.shape == (len(byte_tokenizer), 16)
    assert (len(model.model.layers), model.config.max_position_embeddings) == (3, 77)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.config.bos_token_id == byte_tokenizer.bos_token_id
    again, other = (llama_from_scratch(shape, byte_tokenizer, max_tokens=77, seed=seed) for seed in (0, 1))
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(other.lm_head.weight, model.lm_head.weight)


def flipped(samples):
    return [sample(each.group.prefix, each.group.suffixes, [1 - label for label in each.labels]) for each in samples]


def mean_loss(model, samples):
    labels = torch.tensor([float(label) for each in samples for label in each.labels])
    scores = torch.tensor(answer_scores(model, samples, ANSWERS, batch_tokens=BATCH_TOKENS))
    return torch.nn.functional.binary_cross_entropy(scores, labels).item()


@pytest.mark.parametrize("lora", [None, ADAPTERS.model_copy(update={"dropout": 0.3})])
def test_the_untouched_weights_stay_where_every_epoch_is_worse(lora):
    """The model knows the rule, which validation asks for, and is taught the opposite."""
    rule, held_out, seen = planted(200, seed=0), planted(60, seed=1), []
    settings = (LORA if lora else FULL).model_copy(update={"epochs": 3, "cold_start_epochs": 2})
    start = tune_llm(learner(), rule, ANSWERS, FULL.model_copy(update={"epochs": 3}), seed=0)
    tuned = tune_llm(
        start, flipped(rule), ANSWERS, settings,
        seed=0, lora=lora, cold_start_samples=planted(200, seed=2), validation=held_out, on_step=seen.append,
    )  # fmt: skip
    losses = [step.validation_loss for step in seen if step.validation_loss is not None]
    assert len(losses) == 3
    assert seen[-1].validation_loss == losses[-1]
    assert mean_loss(tuned, held_out) < min(losses)
    assert auc(tuned, held_out) > 0.9


def test_a_better_epoch_replaces_the_untouched_weights():
    rule, held_out, seen = planted(200, seed=0), planted(60, seed=1), []
    settings = FULL.model_copy(update={"epochs": 3})
    tuned = tune_llm(learner(), rule, ANSWERS, settings, seed=0, validation=held_out, on_step=seen.append)
    losses = [step.validation_loss for step in seen if step.validation_loss is not None]
    assert mean_loss(tuned, held_out) == pytest.approx(min(losses), abs=1e-5)
    assert mean_loss(learner(), held_out) > min(losses)


def test_batches_of_one_step_are_one_large_batch():
    """Equal rows, so that the mean over two batches is that over all rows: the same step, but for rounding."""
    samples = [sample([1, 2, 3 + number, 4], [[2]], [number % 2]) for number in range(8)]

    def tuned(**changes):
        settings = FULL.model_copy(update={"max_steps": 1, "warmup_share": 1.0, **changes})
        steps = []
        model = tune_llm(learner(), samples, ANSWERS, settings, seed=0, on_step=steps.append)
        return torch.cat([parameter.flatten() for parameter in model.parameters()]), steps[0].loss

    (small, loss), (large, expected) = tuned(batch_tokens=20, batches_per_step=2), tuned(batch_tokens=40)
    assert loss == pytest.approx(expected, abs=1e-5)
    assert (small - large).abs().max() < 1e-4  # a step of 3e-3 in every weight


def test_computing_in_bfloat16_learns_in_float32_weights():
    settings = FULL.model_copy(update={"epochs": 4})
    model = tune_llm(learner(), planted(400, seed=0), ANSWERS, settings, seed=0, autocast=True)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert auc(model, planted(100, seed=1)) > 0.95


def test_a_lora_leaves_the_loss_of_the_prior_behind():
    """The planted rule on a random Llama that has never seen it; guessing the prior costs 0.69."""
    everywhere = LoraSettings(
        rank=8, alpha=16, modules=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    )
    settings = LORA.model_copy(update={"epochs": 8})
    held_out = planted(100, seed=1)
    model = tune_llm(learner(), planted(400, seed=0), ANSWERS, settings, seed=0, lora=everywhere)
    assert mean_loss(model, held_out) < 0.4
