"""The endpoint on a real Ray Serve behind the real front proxy: deployed, asked, rolled."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from ray import serve

from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.errors import ConfigError
from optirag_core.inference.opening import open_artifacts
from serve_apps.app import Arguments, Doors, application, build_app
from serve_apps.auth import new_token
from serve_apps.local import started, update
from tests.finished_run import changed

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def small(own_workspace: Settings) -> Settings:
    """Replicas that fit into the session's two CPUs twice."""
    actors = {"num_cpus_per_scorer": 0.2, "num_cpus_per_prompt_builder": 0.2, "torch_threads": 1}
    return changed(own_workspace, actors=actors, serving={"num_ingresses": 1})


@pytest.fixture(scope="module")
def file_and_token(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    token, line = new_token("test")
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text(line + "\n")
    return file, token


@pytest.fixture(scope="module")
def client(small: Settings, file_and_token: tuple[Path, str]) -> Iterator[httpx.Client]:
    file, token = file_and_token
    with started(small, Doors(str(file), False)) as front:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"http://{front.host}:{front.port}", headers=headers, timeout=60) as client:
            yield client


def answered(response: httpx.Response) -> dict:
    assert response.status_code == 200, response.text
    return response.json()


def test_it_answers_stores_and_rolls(
    client: httpx.Client, small: Settings, file_and_token: tuple[Path, str], own_workspace: Settings
):
    assert client.get("/readyz").status_code == 200
    assert httpx.get(client.base_url.join("/v1/model")).status_code == 401
    dataset = Dataset.load(open_artifacts(own_workspace, "dataset")["dataset"].path)
    items = dataset.items["item_id"].to_pylist()
    user_id = dataset.interactions["user_id"][0].as_py()
    event = {"event_id": str(uuid.uuid4()), "user_id": "new", "item_id": items[0], "rating": 9}
    stored = answered(client.post("/v1/interactions", json={"events": [event]}))
    assert stored["outcomes"][0]["status"] == "stored"
    assert not answered(client.post("/v1/score", json={"user_id": "new", "item_ids": items[1:3]}))["cold_start"]
    before = answered(client.post("/v1/score", json={"user_id": user_id, "item_ids": items[:5]}))
    assert [item["score"] is not None for item in before["items"]] == [True] * 5

    update(changed(small, serving={"max_calls": 8}), Doors(str(file_and_token[0]), False))
    after = answered(client.post("/v1/score", json={"user_id": user_id, "item_ids": items[:5]}))
    scores = [[item["score"] for item in answer["items"]] for answer in (before, after)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert [entry["item_id"] for entry in answered(client.get("/v1/users/new"))["history"]] == items[:1]


def test_the_walk_through_of_the_client_runs(client: httpx.Client, file_and_token: tuple[Path, str], capsys):
    text = Path("docs/client.md").read_text(encoding="utf-8")
    names = {"BASE_URL": str(client.base_url), "TOKEN": file_and_token[1]}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/client.md", "exec"), names)
    said = capsys.readouterr().out
    assert "cold start: True" in said and "cold start: False" in said and "unknown_item" in said


def test_the_config_file_builds_the_same_application(small: Settings, tmp_path: Path):
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump(small.model_dump(mode="json")))
    built = build_app(Arguments(config=str(config), insecure_no_auth=True))
    assert isinstance(built, serve.Application)
    file = yaml.safe_load(Path("serve_apps/config.yaml").read_text())
    serve.schema.ServeDeploySchema.model_validate(file)
    Arguments(**file["applications"][0]["args"])


def test_without_tokens_nothing_is_started(small: Settings, monkeypatch: pytest.MonkeyPatch):
    for name in ("OPTIRAG_TOKEN_FILE", "OPTIRAG_TOKEN_HASHES"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="no tokens"):
        application(small, Doors(None, False))
