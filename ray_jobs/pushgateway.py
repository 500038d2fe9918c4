"""A committed run, told to Prometheus through a Pushgateway: it stays there when the job and its cluster are gone."""

import logging
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway

log = logging.getLogger(__name__)
JOB = "optirag"
"""The group that each commit replaces: the Pushgateway holds the newest run alone."""
TIMEOUT_S = 10.0


def push_committed(gateway: str, run: str, metrics: Mapping[str, Any]) -> None:
    """Say that a run has just been committed; a gateway that does not take it only makes a warning.

    Args:
        gateway: URL of the Pushgateway.
        metrics: of the run's manifest.
    """
    registry = CollectorRegistry()
    moment = Gauge(
        "optirag_committed_timestamp_seconds", "Unix time of the last commit of a run", ["run"], registry=registry
    )
    moment.labels(run).set_to_current_time()
    pairs = Gauge("optirag_committed_pairs", "pairs of that run", ["run", "outcome"], registry=registry)
    for outcome in ("scored", "rejected"):
        pairs.labels(run, outcome).set(metrics[outcome])
    try:
        push_to_gateway(gateway, job=JOB, registry=registry, timeout=TIMEOUT_S)
    except (OSError, HTTPException) as error:
        log.warning("warning: tracking.pushgateway %s was not told of the commit: %s", gateway, error)
