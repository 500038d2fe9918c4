"""What a calibration of the exit policy found: every candidate's figures, the chosen one, and the certificate."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from optirag_core.engine.policy import ExitPolicy
from optirag_core.errors import ArtifactCorrupt

NORMAL, OVERLOAD = "normal", "overload"
"""Names of the policy that scores, and of the cheaper one, of a looser bound, that an endpoint has for busy times."""

CERTIFICATE_FILE = "exit_policy.json"
_FILES = {NORMAL: CERTIFICATE_FILE, OVERLOAD: "overload_policy.json"}


@dataclass(frozen=True)
class Candidate:
    """One policy, measured on the users that certify."""

    policy: ExitPolicy
    layers: tuple[int, ...]  # exit layers in use, 1-based
    flops_share: float  # of full depth's
    mean_exit_layer: float
    excess_loss: float  # nats against full depth: mean over users of the clipped mean over a user's pairs
    auc_difference: float | None  # against full depth; None outside of the order, and where only one class is present
    p_value: float | None = None  # of H0: the excess loss is at least epsilon; None where there was no test
    accepted: bool = False


@dataclass(frozen=True)
class Calibration:
    """An exit policy and why it may be used.

    With confidence 1 - delta over the draw of the users, the chosen policy's expected excess loss is below epsilon. A
    user's loss is the mean over its pairs of (log loss where the pair stops - log loss at full depth), clipped to
    [-1, 1]; the users that it was tested on had no part in the order of the tests. What changes no answer needs no
    test: full depth, and the evidence alone where full depth says the same.
    """

    epsilon: float  # nats
    delta: float
    num_users: int  # that certify
    num_pairs: int  # of these users
    chosen: int  # number of the candidate
    upper_bound: float  # nats; the test inverted for the chosen policy alone, at most epsilon where one was accepted
    data: str  # sha256 of the users, labels and logits
    candidates: tuple[Candidate, ...]  # full depth first

    @property
    def certified(self) -> Candidate:
        return self.candidates[self.chosen]

    @property
    def flops_ratio(self) -> float | None:
        """Full depth's FLOPs over the policy's; None where the policy runs no layer at all."""
        share = self.certified.flops_share
        return 1.0 / share if share else None

    @property
    def statement(self) -> str:
        """The certificate in one sentence."""
        if not self.chosen:
            return f"full depth: no cheaper policy passed on {self.num_users:,} users"
        if self.certified.p_value is None:
            return "no answer changes, as full depth says what the evidence says"
        return (
            f"with confidence {1 - self.delta:.0%} it costs at most {self.epsilon:g} nats of log loss against full "
            f"depth (p = {self.certified.p_value:.4f} on {self.num_users:,} users)"
        )

    def to_json(self) -> bytes:
        return _ADAPTER.dump_json(self, indent=1)

    @classmethod
    def from_json(cls, text: bytes) -> "Calibration":
        """
        Raises:
            ArtifactCorrupt: the text holds no calibration.
        """
        try:
            calibration = _ADAPTER.validate_json(text)
            if not 0 <= calibration.chosen < len(calibration.candidates):
                raise ValueError(f"candidate {calibration.chosen} of {len(calibration.candidates)} is chosen")
        except (ValidationError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ArtifactCorrupt(f"a certificate is damaged: {reason}; run calibrate_exits again") from None
        return calibration

    @classmethod
    def load(cls, folder: Path, name: str = NORMAL) -> "Calibration":
        """One of those that `save_calibrations` wrote.

        Raises:
            ArtifactCorrupt: as `from_json`.
        """
        return cls.from_json((folder / _FILES[name]).read_bytes())


def save_calibrations(folder: Path, calibrations: Mapping[str, Calibration]) -> None:
    """A file for each name, `NORMAL` or `OVERLOAD`."""
    for name, calibration in calibrations.items():
        (folder / _FILES[name]).write_bytes(calibration.to_json())


def load_calibrations(folder: Path) -> dict[str, Calibration]:
    """By name; without `OVERLOAD` where no cheaper policy was certified.

    Raises:
        ArtifactCorrupt: as `Calibration.from_json`.
    """
    return {name: Calibration.load(folder, name) for name, file in _FILES.items() if (folder / file).is_file()}


_ADAPTER = TypeAdapter(Calibration)
