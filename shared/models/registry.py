"""The models that come with Lacuna: each a folder of `trainer/pretrained` with its weights and manifest."""

import importlib.util
from pathlib import Path

from shared.models import manifest
from shared.models.manifest import Manifest


def shipped_folder() -> Path:
    """Where the shipped artifacts lie, found without importing the trainer."""
    spec = importlib.util.find_spec("trainer")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package `trainer`, which holds the shipped models, is not installed")
    return Path(spec.submodule_search_locations[0]) / "pretrained"


def shipped() -> list[Manifest]:
    """The manifests of all shipped artifacts, in order of name and version."""
    folders = sorted(path.parent for path in shipped_folder().glob("*/manifest.json"))
    return sorted((manifest.read(folder) for folder in folders), key=lambda found: (found.name, found.version))


def shipped_artifact(name: str, version: int) -> Path:
    """The folder of a shipped artifact's weights and manifest."""
    return shipped_folder() / f"{name}@{version}"
