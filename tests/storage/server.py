"""A real S3 server for tests: moto's, in a process of its own, that checks signatures and keys."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

SETUP = {"region_name": "us-east-1", "aws_access_key_id": "setup", "aws_secret_access_key": "setup"}
SETUP_ACTIONS = 3  # user, policy and key are made without credentials; from then on all are checked
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@contextmanager
def s3_server(log: Path) -> Iterator[dict[str, str]]:
    """Yields the environment that reaches it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(SETUP_ACTIONS)}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        _wait(process, port, log)
        endpoint = f"http://127.0.0.1:{port}"
        key, secret = _make_user(endpoint)
        yield {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait(process: subprocess.Popen, port: int, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the S3 server ended at once:\n{log.read_text()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"no S3 server after 60 s:\n{log.read_text()}")


def _make_user(endpoint: str) -> tuple[str, str]:
    iam = boto3.session.Session().client("iam", endpoint_url=endpoint, **SETUP)
    iam.create_user(UserName="optirag")
    iam.put_user_policy(UserName="optirag", PolicyName="s3", PolicyDocument=json.dumps(POLICY))
    key = iam.create_access_key(UserName="optirag")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]
