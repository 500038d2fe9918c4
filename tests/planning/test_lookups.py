import pytest

from optirag_core.config.data import IndexSettings
from optirag_core.planning.lookups import IndexCost, Lookups

USERS = 100e6


def test_a_flat_index_reads_every_vector():
    cost = IndexCost.of(IndexSettings(), USERS, 64)
    assert cost.gib == pytest.approx(100e6 * 260 / 2**30)
    assert cost.search_s == pytest.approx(100e6 / 73.2e6)
    assert cost.build_s == 0.0
    assert IndexCost.of(IndexSettings(), USERS, 128).search_s == pytest.approx(2 * cost.search_s)


def test_lists_and_codes_by_hand():
    """Of 40,000 lists 64 are visited: 160,000 codes, and the lists' own centres."""
    settings = IndexSettings(factory="IVF40000,PQ32", search_parameters="nprobe=64")
    cost = IndexCost.of(settings, USERS, 64)
    assert cost.gib == pytest.approx(100e6 * 45.1 / 2**30)
    assert cost.search_s == pytest.approx(160_000 / 36.4e6 + 40_000 / 73.2e6)
    assert cost.build_s == pytest.approx(100e6 * 40_000 * 14.26e-9)


def test_without_parameters_a_sixteenth_of_the_lists_is_visited():
    cost = IndexCost.of(IndexSettings(factory="IVF4096,Flat"), 1e6, 64)
    assert cost.search_s == pytest.approx(62_500 / 44.5e6 + 4096 / 73.2e6)
    few = IndexCost.of(IndexSettings(factory="IVF64,Flat"), 1e6, 64)
    assert few.search_s == pytest.approx(1e6 * 8 / 64 / 44.5e6 + 64 / 73.2e6)


def test_what_was_not_measured_has_no_figures():
    assert IndexCost.of(IndexSettings(factory="HNSW32"), USERS, 64) is None


def test_a_nodes_copies_by_hand():
    index = IndexCost.of(IndexSettings(), USERS, 64)
    lookups = Lookups(USERS, 20, 64, index)
    assert lookups.histories_gib == pytest.approx(100e6 * (20 * 21.3 + 92) / 2**30)
    assert lookups.vectors_gib == pytest.approx(100e6 * 256 / 2**30)
    assert lookups.gib == pytest.approx(lookups.histories_gib + lookups.vectors_gib + index.gib)
    assert Lookups(USERS, 20, 64, None).gib == pytest.approx(lookups.gib - index.gib)


def test_the_retriever_by_hand():
    lookups = Lookups(1e6, 20, 64, None)
    assert lookups.retriever_gib == pytest.approx(20e6 * 404.0 / 2**30)
    assert lookups.epoch_s == pytest.approx(602.0)
    assert lookups.prepare_s == pytest.approx(26.8)
