"""What `/v1/model` says: artifacts, exit policies and their certificates."""

from collections.abc import Mapping

from optirag_core.config.settings import Settings
from optirag_core.data.dataset import read_info
from optirag_core.engine.certificate import NORMAL, Calibration
from optirag_core.engine.scorer import Scorer
from optirag_core.inference.answers import model_version
from optirag_core.inference.opening import Artifacts
from serve_apps.schemas import ModelAnswer, PolicyAnswer


def model_answer(
    settings: Settings, artifacts: Artifacts, scorers: Mapping[str, Scorer], calibrations: Mapping[str, Calibration]
) -> ModelAnswer:
    """
    Args:
        scorers: by the name of their policy.
        calibrations: by the same names, of the certified ones.
    """
    return ModelAnswer(
        model_version=model_version(artifacts),
        digests=artifacts.digests,
        num_layers=scorers[NORMAL].layers[-1],
        exit_layers=list(settings.exit_heads.layers),
        policies={name: _policy(scorer, calibrations.get(name)) for name, scorer in scorers.items()},
        timed=read_info(artifacts["dataset"].path)["timed"],
        like_threshold=settings.dataset.like_threshold,
    )


def _policy(scorer: Scorer, calibration: Calibration | None) -> PolicyAnswer:
    policy = scorer.policy
    certified = calibration.certified if calibration else None
    return PolicyAnswer(
        criterion=policy.criterion,
        layers=list(scorer.layers),
        threshold=policy.threshold,
        window=policy.window,
        evidence_confidence=policy.evidence_confidence,
        flops_share=certified.flops_share if certified else None,
        mean_exit_layer=certified.mean_exit_layer if certified else None,
        certificate=calibration.statement if calibration else None,
    )
