"""Small labelled prompts in made-up tokens."""

from collections.abc import Sequence

import torch

from optirag_core.engine.groups import UserGroup
from optirag_core.training.packing import Sample

ANSWERS = YES, NO = (7, 3)


def sample(
    prefix: Sequence[int],
    suffixes: Sequence[Sequence[int]],
    labels: Sequence[int] | None = None,
    rating_positions: Sequence[int] = (),
) -> Sample:
    return Sample(UserGroup(prefix, suffixes), [0] * len(suffixes) if labels is None else labels, rating_positions)


def random_samples(number: int, *, seed: int = 0, vocab_size: int = 40) -> list[Sample]:
    """Prefixes of 3-11 tokens, 1-4 suffixes of 1-5, labels at random, ratings at positions 1 and 2."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, count: int) -> list[int]:
        return torch.randint(low, high, (count,), generator=generator).tolist()

    samples = []
    for _ in range(number):
        [length], [num_suffixes] = draw(3, 12, 1), draw(1, 5, 1)
        suffixes = [draw(0, vocab_size, size) for size in draw(1, 6, num_suffixes)]
        samples.append(sample(draw(0, vocab_size, length), suffixes, draw(0, 2, num_suffixes), (1, 2)))
    return samples


def prompts_of(samples: Sequence[Sample]) -> list[list[int]]:
    """Every candidate's whole prompt, in order."""
    return [[*each.group.prefix, *suffix] for each in samples for suffix in each.group.suffixes]
