"""What an artifact says of itself: `manifest.json` beside `weights.safetensors`, or alone for a classical method."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from shared.errors import Refused

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class DataUsed(BaseModel):
    """One set of pictures a model learnt from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: Sha256
    images: int = Field(ge=1)
    terms: str


class Manifest(BaseModel):
    """A model version: what it is, what it learnt from, how good it is. A published one never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    manifest_schema: Literal[1] = Field(1, alias="schema")
    name: Name
    version: int = Field(ge=1, le=999_999_999)
    task: Literal["denoise", "inpaint"]
    architecture: str
    config: dict[str, Any]
    weights_sha256: Sha256 | None  # None: a classical method, which has none
    parameters: int = Field(ge=0)
    created_at: str
    base: str | None
    recipe: dict[str, Any]
    data: list[DataUsed]
    metrics: dict[str, Any]
    licence: str

    @model_validator(mode="after")
    def _weights_or_none(self) -> Self:
        if (self.weights_sha256 is None) != (self.parameters == 0):
            raise ValueError("it has parameters and weights, or neither")
        return self

    @property
    def reference(self) -> str:
        """The name users write: `denoise@1`."""
        return f"{self.name}@{self.version}"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What it was measured at: every row of its evaluations, as it stands, with `model`, `protocol` and `set`.

        Evaluations of another form, in a manifest from outside, are passed over.
        """
        evaluations = self.metrics.get("evaluations")
        measured = [one for one in evaluations if isinstance(one, dict)] if isinstance(evaluations, list) else []
        found = []
        for one in measured:
            of = {"model": self.reference} | {name: one[name] if isinstance(one.get(name), str) else None for name in ("protocol", "set")}
            rows = one.get("rows")
            found += [row | of for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return found

    @property
    def hash_of_weights(self) -> str:
        """SHA-256 in hexadecimal. Only of models that have weights."""
        if self.weights_sha256 is None:
            raise ValueError(f"{self.reference} is a classical method: it has no weights")
        return self.weights_sha256


def read(folder: Path) -> Manifest:
    """The manifest of an artifact's folder. Raises `Refused("artifact_invalid")` if it is missing or wrong."""
    try:
        return parse((folder / "manifest.json").read_bytes())
    except FileNotFoundError as error:
        raise Refused("artifact_invalid", f"{folder.name} holds no manifest.json.") from error


def parse(text: bytes) -> Manifest:
    """A manifest as it came. Raises `Refused("artifact_invalid")`."""
    try:
        return Manifest.model_validate(json.loads(text, parse_constant=_no_number))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])[:100]
        raise Refused("artifact_invalid", f"The manifest is wrong at {where}: {first['msg']}.", fields=_FIELD) from error
    except (ValueError, RecursionError) as error:
        raise Refused("artifact_invalid", "The manifest is not JSON as RFC 8259 has it.", fields=_FIELD) from error


_FIELD = {"manifest": "wrong"}


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def dump(manifest: Manifest) -> str:
    """The manifest as it is written to disk: JSON, sorted as declared, one field a line."""
    return json.dumps(manifest.model_dump(by_alias=True), indent=2, ensure_ascii=False) + "\n"
