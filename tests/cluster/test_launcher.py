"""`aws.yaml` as Ray's launcher reads it, offline, and on moto's EC2: nodes start as it says."""

import copy
import shlex
from pathlib import Path

import boto3
import jsonschema
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE
from ray.scripts.scripts import cli

from optirag_core.config_file import load_settings
from ray_jobs.resources import actors_asked, lack, workers_asked

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "cluster" / "aws.yaml").read_text(encoding="utf-8")
ASSUMED_ROLES = '{"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "*"}]}'


@pytest.fixture
def config():
    return prepare_config(yaml.safe_load(TEXT))


def test_ray_accepts_it(config):
    validate_config(config)


@pytest.mark.parametrize("place", [(), ("docker",), ("auth",), ("available_node_types", "a100")])
def test_ray_refuses_a_typo(config, place):
    section = config
    for key in place:
        section = section[key]
    section["max_worker"] = 1

    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(config)


@pytest.mark.parametrize("where", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_nodes_start_with_commands_that_ray_has(config, where):
    for command in config[where]:
        program, name, *options = shlex.split(command)

        assert program == "ray"
        cli.commands[name].make_context(name, options)  # raises where an option is unknown


def test_only_the_owner_of_the_token_gets_in_and_the_dashboard_stays_inside(config):
    options = config["docker"]["run_options"]
    [path] = [option.split("=")[1] for option in options if option.startswith("--env RAY_AUTH_TOKEN_PATH=")]
    [head] = [command for command in config["head_start_ray_commands"] if "--head" in command]

    assert "--env RAY_AUTH_MODE=token" in options
    assert str(Path(path).parent) in config["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in head
    assert "KEY_ID" not in TEXT.upper() and "SECRET" not in TEXT.upper()


def test_the_jobs_of_the_settings_beside_it_find_room(config):
    settings = load_settings(ROOT / "ray_jobs/configs/a100-cluster.yaml", [("data", "DIR")])
    types = config["available_node_types"]
    nodes = [each["resources"] for each in types.values() for _ in range(each["max_workers"])]
    nodes += [types["head"]["resources"]]

    assert settings.ray.wait_for_nodes_s > 0 == types["a100"]["min_workers"]
    assert lack(actors_asked(settings.actors), nodes) is None
    for workers in (settings.training.retriever, settings.training.llm, settings.training.exit_heads):
        assert lack(workers_asked(workers), nodes) is None


@pytest.fixture
def account(monkeypatch):
    """An empty account with what the file takes for granted: name of a placeholder -> what is there."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        ec2, iam = (boto3.client(name, region_name="us-east-1") for name in ("ec2", "iam"))
        for name in ("optirag-head", "optirag-worker"):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=ASSUMED_ROLES)
            iam.create_instance_profile(InstanceProfileName=name)
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        ec2.create_key_pair(KeyName="YOUR-KEY")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        yield {
            "ami-YOUR-IMAGE": ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
            "subnet-YOUR-SUBNET": ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/20")["Subnet"]["SubnetId"],
            "sg-YOUR-GROUP": ec2.create_security_group(VpcId=vpc, GroupName="o", Description="o")["GroupId"],
        }


@pytest.mark.slow
@pytest.mark.thorough
def test_its_nodes_start_on_ec2(account):
    text = TEXT
    for placeholder, there in account.items():
        text = text.replace(placeholder, there)
    config = bootstrap_aws(prepare_config(yaml.safe_load(text)))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, each in config["available_node_types"].items():
        provider.create_node(copy.deepcopy(each["node_config"]), {TAG_RAY_USER_NODE_TYPE: name}, 1)

    reservations = boto3.client("ec2", region_name="us-east-1").describe_instances()["Reservations"]
    instances = [each for reservation in reservations for each in reservation["Instances"]]
    started = {each["InstanceType"]: each["IamInstanceProfile"]["Arn"].split("/")[-1] for each in instances}
    assert started == {
        "m6i.2xlarge": "optirag-head", "m6i.8xlarge": "optirag-worker", "p4d.24xlarge": "optirag-worker",
    }  # fmt: skip
    assert {each["SecurityGroups"][0]["GroupId"] for each in instances} == {account["sg-YOUR-GROUP"]}
    assert not any(each.get("PublicIpAddress") for each in instances)
    declared = {name: each.pop("resources") for name, each in config["available_node_types"].items() if name != "head"}
    found = AWSNodeProvider.fillout_available_node_types_resources(config)["available_node_types"]
    for name, resources in declared.items():  # what the file says of a machine is what EC2 says
        assert resources.items() <= found[name]["resources"].items()
