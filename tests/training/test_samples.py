from optirag_core.training.samples import few_shots

from .conftest import sample

SAMPLES = [sample([number], [[2]]) for number in range(20)]


def test_few_shots_are_some_of_the_samples_in_their_order():
    drawn = [each.group.prefix[0] for each in few_shots(SAMPLES, 8, seed=0)]
    assert len(drawn) == 8
    assert drawn == sorted(set(drawn))
    assert drawn == [each.group.prefix[0] for each in few_shots(SAMPLES, 8, seed=0)]
    assert drawn != [each.group.prefix[0] for each in few_shots(SAMPLES, 8, seed=1)]


def test_no_limit_and_a_limit_that_is_not_reached_give_all():
    assert (
        few_shots(SAMPLES, None, seed=0) == few_shots(SAMPLES, 20, seed=0) == few_shots(SAMPLES, 99, seed=0) == SAMPLES
    )
