"""A commit is worth more than the message of it; that it arrives is tested with a run (`tests/cluster`)."""

import socket

from ray_jobs.pushgateway import push_committed


def test_a_gateway_that_is_not_there_only_makes_a_warning(caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    push_committed(url, "night", {"scored": 2, "rejected": 1})

    [message] = caplog.messages
    assert message.startswith(f"warning: tracking.pushgateway {url} was not told of the commit:")
