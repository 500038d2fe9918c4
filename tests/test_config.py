from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError

from optirag_core.config.settings import Settings
from optirag_core.config_file import ALIASES, load_settings, settings_from
from optirag_core.errors import ConfigError

DEEP = {"llm": {"scratch": {"shape": {"num_layers": 8}}}, "exit_heads": {"layers": [3, 5]}}
CONFIGS = sorted((Path(__file__).resolve().parents[1] / "ray_jobs" / "configs").glob("*.yaml"))


@pytest.fixture
def write(tmp_path):
    def file(text: str) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return file


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"promt": {}}, r"^unknown setting promt: did you mean prompt\?$"),
        ({"llm": {"scratch": {"epoch": 1}}}, r"^unknown setting llm\.scratch\.epoch: did you mean .*\.epochs\?$"),
        ({"llm": {"scratch": {"shape": {"n_layers": 3}}}}, r"^unknown setting .*: did you mean .*shape\.num_layers\?$"),
        ({"dataset": {"split": {"tune_shares": 0.5}}}, r"did you mean dataset\.split\.tune_share\?$"),
        ({"zzz": 1}, r"^unknown setting zzz: valid keys of the settings are workspace, seed, dataset, .*, ray$"),
        (
            {"retriever": {"zzz": 1}},
            r"^unknown setting retriever\.zzz: valid keys of retriever are method, ",
        ),
    ],
)
def test_unknown_key_names_the_nearest(raw, message):
    with pytest.raises(ConfigError, match=message):
        settings_from(raw)


@pytest.mark.parametrize(
    ("section", "key", "wrong", "right"),
    [
        ("dataset", "max_malformed_share", 1.01, 1.0),
        ("dataset", "max_malformed_share", -0.01, 0.0),
        ("dataset", "max_malformed_share", float("nan"), 0.5),
        ("dataset", "min_history", 0, 1),
        ("prompt", "num_similar_users", -1, 0),
        ("index", "candidates", 2049, 2048),
        ("index", "min_recall", 1.01, 1.0),
        ("index", "min_history", 0, 1),
        ("index", "search_parameters", "nprobe=0", "nprobe=1,efSearch=9"),
        ("retriever", "learning_rate", 0.0, 1e-9),
        ("retriever", "l2", -1e-9, 0.0),
        ("prompt", "max_history", 0, 1),
        ("llm", "init", "guess", "scratch"),
        ("exit_heads", "decay", -0.1, 0.0),
        ("exit_policy", "window", 1, 2),
        ("exit_policy", "threshold", -0.1, 0.01),
        ("exit_policy", "criterion", "guess", "none"),
        ("exit_policy", "evidence_confidence", 0.4, None),
        ("calibration", "epsilon", 0.0, 0.01),
        ("calibration", "delta", 1.0, 0.2),
        ("calibration", "overload_epsilon", 1.0, 0.02),
        ("actors", "num_gpus_per_scorer", -1, 0.5),
        ("ray", "object_store_mib", 79, 80),
        ("ray", "num_cpus", "two", "2"),
    ],
)
def test_bounds_are_refused_with_key_and_value(section, key, wrong, right):
    others = {name: values for name, values in DEEP.items() if name != section}
    settings_from({**others, section: {**DEEP.get(section, {}), key: right}})
    with pytest.raises(ConfigError, match=rf"^{section}\.{key}: got {wrong!r}: "):
        settings_from({**others, section: {**DEEP.get(section, {}), key: wrong}})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"dataset": {"source": "yelp"}}, r"dataset\.source yelp reads raw files: give --data DIR"),
        ({"retriever": {"aggregate": "weighted", "layer_weights": []}}, r"weighted needs 3 .*\.layer_weights, got 0"),
        ({"retriever": {"aggregate": "weighted", "layer_weights": [1, 2]}}, r"needs 3 .*, got 2"),
        ({"retriever": {"method": "text"}}, r"retriever\.method: text needs retriever\.text\.encoder"),
        ({"llm": {"init": "pretrained"}}, r"llm\.init: pretrained needs llm\.pretrained\.path"),
        ({"llm": {"scratch": {"shape": {"hidden_size": 30}}}}, r"hidden_size 30 is not a multiple of num_heads 4"),
        ({"exit_heads": {"layers": []}}, r"exit_heads\.layers must be a strictly increasing, non-empty list, got \[\]"),
        ({"exit_heads": {"layers": [5, 3]}}, r"strictly increasing.*\[5, 3\]"),
        ({"exit_heads": {"layers": [3, 3]}}, r"strictly increasing.*\[3, 3\]"),
        ({**DEEP, "exit_heads": {"layers": [3, 8]}}, r"\[3, 8\] must lie below llm\.scratch\.shape\.num_layers 8"),
        ({"exit_policy": {"criterion": "ratio"}}, r"criterion ratio .* has no certificate: .* or give --uncertified"),
        (
            {"exit_policy": {"criterion": "none", "frozen_prefix_after": 2}},
            "none with these settings may change",
        ),
        ({"exit_policy": {"criterion": "none", "evidence_confidence": 0.9}}, "has no certificate"),
        ({"exit_policy": {"threshold": 0.5}}, r"exit_policy\.threshold belongs to a policy that is named by hand"),
        ({"exit_policy": {"group_stop": 2}}, r"exit_policy\.group_stop belongs to a policy that is named by hand"),
        ({"calibration": {"epsilon": 0.01, "overload_epsilon": 0.01}}, r"overload_epsilon 0.01 must be above .* 0.01"),
        ({"exit_heads": {"layers": [2, 4]}}, r"exit_policy\.window 3 reads 3 layers back: .* must be >= 3, got 2"),
    ],
)
def test_settings_that_contradict_each_other(raw, message):
    with pytest.raises(ConfigError, match=message):
        settings_from(raw)


def test_settings_that_only_just_agree():
    settings_from({"retriever": {"aggregate": "weighted", "layer_weights": [1, 2, 3]}})
    settings_from({"llm": {"init": "pretrained", "pretrained": {"path": "x"}}, "exit_heads": {"layers": [5, 30]}})
    settings_from({**DEEP, "exit_heads": {"layers": [2, 7]}, "exit_policy": {"window": 2}})
    settings_from({**DEEP, "exit_heads": {"layers": [3, 7]}, "exit_policy": {"window": 3}})


def test_a_file_is_read_and_the_rest_has_defaults(write):
    settings = load_settings(write("seed: 3\nretriever: {patience: 7}\n"))
    assert (settings.seed, settings.retriever.patience) == (3, 7)
    assert settings.retriever.l2 == Settings().retriever.l2
    assert load_settings(write("")) == Settings()


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().retriever.patience = 3


def test_overrides_win_in_order(write):
    path = write("llm: {scratch: {epochs: 7, shape: {num_layers: 8}}}\n")
    overrides = [("llm.scratch.epochs", "2"), ("exit_heads.layers", "[3, 5]"), ("retriever.l2", "1e-4")]
    settings = load_settings(path, [*overrides, ("llm.scratch.epochs", "3")])
    assert settings.llm.scratch.epochs == 3
    assert settings.exit_heads.layers == (3, 5)
    assert settings.retriever.l2 == 1e-4
    assert load_settings(path, [("llm.scratch.shape.num_layers", "9")]).llm.scratch.shape.num_layers == 9


def test_short_names_on_the_command_line(write):
    path = write("dataset: {source: bookcrossing}\n")
    with pytest.raises(ConfigError, match="give --data DIR"):
        load_settings(path)
    settings = load_settings(path, [("data", "some/folder"), ("header", "none")])
    assert settings.dataset.path == "some/folder"
    assert settings.dataset.header == "none"


def test_short_names_hide_no_setting():
    assert not set(ALIASES) & set(Settings.model_fields)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("run.nam", r"^unknown setting run\.nam: did you mean run\.name\?$"),
        ("seed.x", r"^seed is a single value: it has no key 'x'$"),
        ("retriever.l2.x", r"^retriever\.l2 is a single value: it has no key 'x'$"),
        ("llm", r"^llm: got 1: "),
    ],
)
def test_overrides_that_name_nothing(write, key, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(write("seed: 0\nretriever: {l2: 7}\n"), [(key, "1")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("llm: [1, 2\nseed: 1", "is not valid YAML: "),
        ("llm: {epochs: 1", "is not valid YAML: "),
        ("- llm\n- seed", "holds a list, expected a mapping of sections"),
        ("just words", "holds a str, expected a mapping of sections"),
        ("llm: 3", "^llm: got 3: "),
    ],
)
def test_files_that_hold_no_settings(write, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(write(text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no settings file at .*absent\.yaml: give --config FILE"):
        load_settings(tmp_path / "absent.yaml")


KEYS = st.sampled_from([*Settings.model_fields, "epochs", "shape", "layers", "split", "path"]) | st.text(max_size=5)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


@examples(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_any_mapping_is_valid_or_one_clear_error(raw):
    try:
        settings_from(raw)
    except ConfigError as error:
        assert str(error)


def test_settings_survive_the_way_to_a_worker_in_another_folder(tmp_path, monkeypatch):
    settings = settings_from(DEEP)
    monkeypatch.chdir(tmp_path)
    assert settings_from(yaml.safe_load(yaml.safe_dump(settings.model_dump(mode="json")))) == settings


def test_there_are_configs():
    assert "demo.yaml" in {path.name for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_jobs_loads(path):
    source = yaml.safe_load(path.read_text(encoding="utf-8"))["dataset"]["source"]
    settings = load_settings(path, [] if source == "synthetic" else [("data", "folder")])
    assert settings.dataset.source == source


def test_answer_words_are_not_yaml_booleans(tmp_path):
    (tmp_path / "c.yaml").write_text("prompt: {answer_yes: yes, answer_no: no}", encoding="utf-8")

    settings = load_settings(tmp_path / "c.yaml", [("data", "2018"), ("prompt.answer_yes", "on")])

    assert (settings.prompt.answer_yes, settings.prompt.answer_no, settings.dataset.path) == ("on", "no", "2018")


def test_a_section_without_keys_takes_overrides(tmp_path):
    (tmp_path / "c.yaml").write_text("dataset:\n", encoding="utf-8")

    assert load_settings(tmp_path / "c.yaml", [("dataset.min_history", "4")]).dataset.min_history == 4


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"llm": {"scratch": {"learning_rate": float("inf")}}}, "llm.scratch.learning_rate"),
        ({"llm": {"pretrained": {"path": "x", "tuning": "lora", "muon_learning_rate": 0.1}}}, "whole matrices"),
    ],
)
def test_rates_that_cannot_train_are_refused(raw, message):
    with pytest.raises(ConfigError, match=message):
        settings_from(raw)


def test_a_date_is_a_name_for_a_run(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("run: {name: 2026-11-22}", encoding="utf-8")

    assert load_settings(path).run.name == "2026-11-22"
    assert load_settings(path, [("run.name", "2026-11-23")]).run.name == "2026-11-23"


@pytest.mark.parametrize("name", ["LATEST", "LATEST-test", "scores", "a/b", "../a", ".hidden", ""])
def test_a_run_has_a_name_that_can_be_a_folder(tmp_path, name):
    path = tmp_path / "settings.yaml"
    path.write_text("{}", encoding="utf-8")

    with pytest.raises(ConfigError, match=r"run\.name"):
        load_settings(path, [("run.name", f"'{name}'")])


def test_an_own_template_is_found_from_other_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings_from({"prompt": {"template": "mine.jinja"}}).prompt.template == str(tmp_path / "mine.jinja")
    assert settings_from({"prompt": {"template": "books"}}).prompt.template == "books"
