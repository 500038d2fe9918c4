"""Users are divided among those who learn from them: nobody twice, nobody lost, the same for one seed."""

import json

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from optirag_core.config.data import SplitSettings
from optirag_core.data.roles import Roles

ROLES = ("llm", "heads", "policy")


def interactions(num_users=2000, rows_per_user=3):
    return pa.table({"user_id": [f"u{number // rows_per_user}" for number in range(num_users * rows_per_user)]})


def users(roles, table, role):
    return set(roles.rows(table, role)["user_id"].to_pylist())


def test_every_user_has_one_role_and_all_rows_follow_it():
    roles = Roles.of(SplitSettings(heads_share=0.2, policy_share=0.15), seed=0)
    table = interactions()
    parts = {role: roles.rows(table, role) for role in ROLES}

    assert sum(map(len, parts.values())) == len(table)
    for part in parts.values():
        assert set(pc.value_counts(part["user_id"]).field("counts").to_pylist()) == {3}
    shares = {role: len(part) / len(table) for role, part in parts.items()}
    assert shares == pytest.approx({"llm": 0.65, "heads": 0.2, "policy": 0.15}, abs=0.03)


def test_a_users_role_depends_on_the_seed_and_its_own_id_alone():
    roles = Roles.of(SplitSettings(), seed=0)
    few, many = interactions(num_users=50), interactions()

    for role in ROLES:
        assert users(roles, few, role) == users(roles, many, role) & set(few["user_id"].to_pylist())
    assert users(Roles.of(SplitSettings(), seed=1), many, "heads") != users(roles, many, "heads")


def test_a_larger_share_of_heads_takes_users_from_the_llm_alone():
    table = interactions()
    before, after = (Roles.of(SplitSettings(heads_share=share), seed=0) for share in (0.1, 0.3))

    assert users(before, table, "policy") == users(after, table, "policy")
    assert users(before, table, "heads") < users(after, table, "heads")


def test_roles_survive_the_data_sets_info():
    roles = Roles.of(SplitSettings(), seed=3)

    assert Roles.from_info(json.loads(json.dumps(roles.to_info()))) == roles


def test_no_user_is_left_for_the_llm():
    with pytest.raises(ValidationError, match=r"heads_share \+ policy_share of dataset.split is 1, expected less"):
        SplitSettings(heads_share=0.6, policy_share=0.4)
