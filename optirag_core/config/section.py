"""What all sections of the settings share."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveShare = Annotated[float, Field(gt=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]


def _absolute(path: str | None) -> str | None:
    """Workers run in other folders than the driver; a hub name stays as it is."""
    return str(Path(path).absolute()) if path and Path(path).exists() else path


ModelPath = Annotated[str | None, AfterValidator(_absolute)]


class Section(BaseModel):
    """A group of settings: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)
