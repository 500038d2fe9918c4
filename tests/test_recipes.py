"""Each setting changes the artifacts that depend on it, and no others."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from optirag_core import prompting
from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from
from optirag_core.recipes import (
    Recipe,
    baselines_recipe,
    dataset_recipe,
    evidence_recipe,
    exit_features_recipe,
    exit_heads_recipe,
    exit_policy_recipe,
    index_recipe,
    llm_recipe,
    reports_recipe,
    retriever_recipe,
    run_identity,
)
from optirag_core.runs.plan import ShardPlan

TEMPLATES = Path(prompting.__file__).parent / "templates"
FLOORS = ["user mean", "item mean"]
ALL = "dataset evidence retriever index llm exit_features exit_heads exit_policy scores baselines"
CHANGES = {
    "workspace": ("elsewhere", ""),
    "seed": (1, ALL),
    "dataset.path": ("elsewhere", ""),
    "dataset.events": (True, ""),  # what the log holds counts: `test_a_data_set_is_known_by_its_events`
    "dataset.min_history": (4, ALL),
    "dataset.split.tune_share": (0.2, ALL),
    "retriever.num_layers": (2, "retriever index llm exit_features exit_heads exit_policy scores"),
    "retriever.patience": (1, "retriever index llm exit_features exit_heads exit_policy scores"),
    "retriever.text.encoder": ("elsewhere", ""),  # retriever.method is gcn
    "retriever.text.max_tokens": (64, ""),
    "index.factory": ("HNSW32", "index llm exit_features exit_heads exit_policy scores"),
    "index.search_parameters": ("efSearch=99", "index llm exit_features exit_heads exit_policy scores"),
    "index.candidates": (200, "index llm exit_features exit_heads exit_policy scores"),
    "index.min_history": (2, "index llm exit_features exit_heads exit_policy scores"),
    "index.min_recall": (0.5, ""),
    "index.gpu": (True, ""),
    "evidence.attributes": (["author"], "evidence llm exit_features exit_heads exit_policy scores baselines"),
    "evidence.heads": (False, "exit_heads exit_policy scores"),
    "evidence.prompt": (True, "llm exit_features exit_heads exit_policy scores"),
    "prompt.template": ("books", "llm exit_features exit_heads exit_policy scores"),
    "prompt.num_similar_users": (2, "llm exit_features exit_heads exit_policy scores"),
    "prompt.max_history": (10, "llm exit_features exit_heads exit_policy scores baselines"),
    "prompt.answer_yes": ("good", "llm exit_features exit_heads exit_policy scores"),
    "llm.scratch.epochs": (3, "llm exit_features exit_heads exit_policy scores"),
    "llm.scratch.shape.hidden_size": (64, "llm exit_features exit_heads exit_policy scores"),
    "llm.pretrained.learning_rate": (0.1, ""),  # llm.init is scratch
    "llm.pretrained.path": ("elsewhere", ""),
    "exit_features.test_users": (10, "exit_features exit_heads exit_policy scores"),
    "exit_heads.layers": ([3], "exit_features exit_heads exit_policy scores"),
    "exit_heads.epochs": (2, "exit_heads exit_policy scores"),
    "exit_policy.criterion": ("none", "scores"),
    "exit_policy.window": (2, "exit_features exit_heads exit_policy scores"),
    "calibration.epsilon": (0.01, "exit_policy scores"),
    "calibration.overload_epsilon": (0.02, "exit_policy scores"),
    "calibration.thresholds": ([0.1], "exit_policy scores"),
    "baselines.num_trials": (9, "baselines"),
    "baselines.models": (["DIN"], ""),  # each model is an artifact of its own
    "baselines.num_seeds": (3, ""),
    "reproduce.timed_users": (9, ""),
    "requests.max_users": (10, "baselines"),  # the scores' own requests: `test_requests_are_part_of_the_scores`
    "engine.dtype": ("bfloat16", "exit_features exit_heads exit_policy scores"),
    "engine.max_tokens_in_flight": (8192, "scores"),
    "requests.path": ("elsewhere", ""),  # what lies there counts, not where: `test_requests_are_part_of_the_scores`
    "run.name": ("night", ""),
    "run.pairs_per_shard": (10, "scores"),
    "run.lease_s": (10.0, ""),
    "compare.max_auc_drop": (0.01, ""),
    "actors.num_scorers": (2, ""),
    "actors.torch_threads": (1, "scores"),
    "actors.num_gpus_per_scorer": (1.0, "scores"),
    "actors.num_prompt_builders": (3, ""),
    "serving.max_calls": (8, ""),
    "training.llm.num_workers": (2, ""),
    "training.retriever.num_gpus_per_worker": (1.0, ""),
    "tracking.tensorboard": ("here", ""),
    "plan.pairs": (10, ""),
    "storage.max_attempts": (3, ""),
    "ray.num_cpus": (4, ""),
}


def with_setting(name: str, value: object, settings: Settings) -> Settings:
    raw = settings.model_dump(mode="json")
    *sections, key = name.split(".")
    place = raw
    for section in sections:
        place = place[section]
    place[key] = value
    return settings_from(raw)


def versions(settings: Settings, *, weights: str | None = None, requests: str = "test") -> dict[str, str]:
    """Of every artifact that these settings make, each from the ones before it."""
    made = {"dataset": dataset_recipe(settings, {"ratings.csv": "1" * 64}).version}
    dataset = dict(made)
    for kind, recipe in (
        ("evidence", evidence_recipe),
        ("retriever", lambda settings, _: retriever_recipe(settings, dataset)),
        ("index", lambda settings, parents: index_recipe(settings, dataset | {"retriever": parents["retriever"]})),
        ("llm", lambda settings, parents: llm_recipe(settings, parents, weights)),
        ("exit_features", exit_features_recipe),
        ("exit_heads", exit_heads_recipe),
        ("exit_policy", exit_policy_recipe),
    ):
        made[kind] = recipe(settings, dict(made)).version
    made["scores"] = run_identity(settings, dict(made), {"split": requests}, ShardPlan(())).run_id
    known = {kind: made[kind] for kind in ("dataset", "evidence")}
    made["baselines"] = baselines_recipe(settings, known, model="DIN", seed=settings.seed, profile=["age"]).version
    return made


def remade(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {kind for kind in before if before[kind] != after[kind]}


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_remakes_what_depends_on_it_and_nothing_else(name):
    value, expected = CHANGES[name]
    settings = Settings()

    assert remade(versions(settings), versions(with_setting(name, value, settings))) == set(expected.split())


def test_every_section_of_the_settings_is_in_the_table():
    assert {name.split(".")[0] for name in CHANGES} == set(Settings.model_fields)


def test_a_data_set_is_known_by_its_events():
    files, settings = {"ratings.csv": "1" * 64}, Settings()
    events = [None, {"until": 1, "sha256": "1"}, {"until": 1, "sha256": "2"}, {"until": 2, "sha256": "1"}]
    assert dataset_recipe(settings, files).version == dataset_recipe(settings, files, None).version
    assert len({dataset_recipe(settings, files, among).version for among in events}) == len(events)


def test_a_pretrained_llm_is_known_by_its_weights_and_not_by_its_place():
    settings = settings_from({"llm": {"init": "pretrained", "pretrained": {"path": "here"}}})
    moved = with_setting("llm.pretrained.path", "there", settings)
    dependent = {"llm", "exit_features", "exit_heads", "exit_policy", "scores"}

    assert remade(versions(settings, weights="1" * 64), versions(moved, weights="1" * 64)) == set()
    assert remade(versions(settings, weights="1" * 64), versions(settings, weights="2" * 64)) == dependent
    slower = with_setting("llm.pretrained.learning_rate", 1e-6, settings)
    assert remade(versions(settings, weights="1" * 64), versions(slower, weights="1" * 64)) == dependent
    deeper = with_setting("llm.scratch.epochs", 9, settings)
    assert remade(versions(settings, weights="1" * 64), versions(deeper, weights="1" * 64)) == set()


def test_the_text_retriever_depends_on_its_encoders_weights_and_on_words_and_not_on_places_or_the_gcn():
    settings = settings_from({"retriever": {"method": "text", "text": {"encoder": "here"}}})

    def version(weights: str = "1", **changes: object) -> str:
        changed = settings
        for name, value in changes.items():
            changed = with_setting(name.replace("__", "."), value, changed)
        return retriever_recipe(changed, {"dataset": "1"}, weights * 64).version

    same = {"retriever__text__encoder": "there", "retriever__num_layers": 2, "seed": 1, "prompt__max_history": 3}
    assert {version(**{name: value}) for name, value in same.items()} == {version()}
    words = {"prompt__template": "books", "evidence__prompt": True}
    others = [version("2"), version(retriever__text__max_tokens=64), *(version(**{key: words[key]}) for key in words)]
    assert len({version(), *others}) == 1 + len(others)
    assert version() != retriever_recipe(Settings(), {"dataset": "1"}).version


def test_a_template_is_known_by_its_text_and_not_by_its_name(tmp_path):
    source = tmp_path / "mine.jinja"
    source.write_text((TEMPLATES / "generic.jinja").read_text(encoding="utf-8"), encoding="utf-8")
    copied = with_setting("prompt.template", str(source), Settings())
    assert remade(versions(Settings()), versions(copied)) == set()

    source.write_text(source.read_text(encoding="utf-8").replace("Instruction", "Task"), encoding="utf-8")
    assert remade(versions(Settings()), versions(copied)) == {
        "llm",
        "exit_features",
        "exit_heads",
        "exit_policy",
        "scores",
    }


def test_a_baseline_is_one_model_one_seed_and_the_profile_that_prompts_show():
    cell = {"model": "DIN", "seed": 0, "profile": ["age"]}
    others = [{"model": "DeepFM"}, {"seed": 1}, {"profile": ["age", "location"]}]
    made = [baselines_recipe(Settings(), {}, **cell).version]
    made += [baselines_recipe(Settings(), {}, **(cell | other)).version for other in others]
    assert len(set(made)) == 4


def test_requests_are_part_of_the_scores():
    assert remade(versions(Settings()), versions(Settings(), requests="other")) == {"scores"}


def test_reports_depend_on_the_seed_their_parents_and_the_predictors():
    report = reports_recipe(Settings(), {"scores": "1"}, FLOORS)
    assert report.version == reports_recipe(Settings(), {"scores": "1"}, FLOORS).version
    assert report.version != reports_recipe(Settings(seed=1), {"scores": "1"}, FLOORS).version
    assert report.version != reports_recipe(Settings(), {"scores": "2"}, FLOORS).version
    assert report.version != reports_recipe(Settings(), {"scores": "1"}, [*FLOORS, "DeepFM"]).version


def test_a_version_is_a_short_name():
    assert len(Recipe("llm", {}, {}).version) == 12
    assert Recipe("llm", {"a": 1, "b": 2}, {}).version == Recipe("llm", {"b": 2, "a": 1}, {}).version
    assert Recipe("llm", {"a": [3, 4]}, {}).version != Recipe("llm", {"a": [4, 3]}, {}).version


PLAIN = st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.text(max_size=4), max_size=3)


@examples(max_examples=100, deadline=None)
@given(PLAIN, PLAIN, PLAIN, PLAIN)
def test_versions_are_equal_only_for_equal_settings_and_parents(config, parents, other_config, other_parents):
    equal = (config, parents) == (other_config, other_parents)
    assert (Recipe("llm", config, parents).version == Recipe("llm", other_config, other_parents).version) is equal
