"""Rules that no single file can hold: what may be named, what may be imported, what is pinned, what is shipped."""

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from itertools import chain
from math import prod
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared.models import manifest, registry
from tests.documents.pages import ROOT, sources, text
from trainer.execution.classic import ClassicExecutor

# in halves, so that this file does not name them itself
REGISTRIES = [
    f"{name}.{end}"
    for name, end in (
        ("pypi", "org"), ("files.pythonhosted", "org"), ("registry.npmjs", "org"), ("registry.yarnpkg", "com"), ("conda.anaconda", "org"),
        ("download.pytorch", "org"), ("proxy.golang", "org"), ("index.crates", "io"),
    )
]  # fmt: skip
MACHINE_PATHS = re.compile(r"(?<![\w.*~$}-])/(?:" + "|".join(("work", "root", r"home/\w+", r"Users/\w+")) + r")/")
PINS = ("requirements/serving.txt", "requirements/full.txt", "requirements/dev.txt")


def _texts() -> dict[str, str]:
    found = {}
    for path in sources():
        data = path.read_bytes()
        if b"\0" not in data[:4096]:
            found[path.relative_to(ROOT).as_posix()] = data.decode("utf-8", errors="replace")
    return found


def test_no_source_names_a_package_registry() -> None:
    named = [f"{path}: {host}" for path, content in _texts().items() for host in REGISTRIES if host in content]
    assert not named, f"{named}: whoever builds Lacuna chooses where packages come from (pip's own configuration). Take the host out."


def test_no_source_names_a_path_of_the_machine_it_was_written_on() -> None:
    named = [f"{path}: {found[0]}" for path, content in _texts().items() for found in MACHINE_PATHS.finditer(content)]
    assert not named, f"{named}: such a path exists on one machine only. Write it relative to the project, or make it a setting."


def _pins(page: str) -> list[tuple[Requirement, str]]:
    """(what is pinned, the rest of its lines) of a requirements file."""
    logical = text(page).replace("\\\n", " ").splitlines()
    lines = [line for line in logical if line.strip() and not line.lstrip().startswith("#")]
    return [(Requirement(line.split(" --hash")[0].strip()), line) for line in lines]


@pytest.mark.parametrize("page", PINS)
def test_every_requirement_is_pinned_with_its_hashes_and_comes_from_no_named_place(page: str) -> None:
    for requirement, line in _pins(page):
        pinned = [specifier.operator for specifier in requirement.specifier] == ["=="]
        assert pinned, f"{page}: {requirement.name} is not pinned to one version. Run `make lock`."
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), f"{page}: {requirement.name} has no hash: pip could install anything."
    assert "://" not in text(page), f"{page} names an address; where packages come from is not ours to say."
    assert "index-url" not in text(page), f"{page} names an index; where packages come from is not ours to say."


def test_every_dependency_is_among_the_pins_and_the_lists_agree() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    serving, full, dev = ({(canonicalize_name(pin.name), str(pin.specifier), str(pin.marker)) for pin, _ in _pins(page)} for page in PINS)
    asked = {
        "serving": (serving, project["project"]["dependencies"]),
        "full": (full, project["project"]["optional-dependencies"]["full"]),
        "dev": (dev, chain(*project["dependency-groups"].values())),
    }
    for name, (pins, wanted) in asked.items():
        missing = [one for one in wanted if canonicalize_name(Requirement(one).name) not in {pin for pin, _, _ in pins}]
        assert not missing, f"requirements/{name}.txt lacks {missing}. Run `make lock`."
    for smaller, larger in ((serving, full), (full, dev)):
        apart = sorted({name for name, _, _ in smaller ^ larger} & {name for name, _, _ in smaller})
        assert not apart, f"The tests would run with other versions than users get, of {apart}. Run `make lock`."


def test_a_worker_that_restores_on_a_cpu_needs_no_tensorflow() -> None:
    heavy = {"tensorflow", "tensorflow-cpu", "keras", "h5py", "safetensors"} & {canonicalize_name(pin.name) for pin, _ in _pins(PINS[0])}
    assert not heavy, f"requirements/serving.txt brings {sorted(heavy)}: 1.3 GB that a serving worker never uses. They belong to `full`."


def _brought_along(module: str) -> set[str]:
    """The top-level packages that importing `module` in a fresh process brings."""
    program = f"import sys, json; import {module}; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"`import {module}` fails by itself:\n{done.stderr}"
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("api.wsgi", {"tensorflow", "keras", "numpy", "PIL", "pyvips", "celery", "kombu", "safetensors", "rich"}),
        ("client.cli", {"tensorflow", "keras", "numpy", "PIL", "pyvips", "celery", "kombu", "flask", "sqlalchemy"}),
        ("server.cli", {"tensorflow", "keras", "numpy", "PIL", "pyvips", "celery", "kombu", "flask"}),
        ("worker.app", {"tensorflow", "keras", "safetensors", "openvino", "flask"}),
        ("worker.guardian", {"tensorflow", "keras", "openvino", "numpy", "PIL", "celery", "flask"}),
        ("trainer.__main__", {"tensorflow", "keras", "openvino", "flask", "celery", "sqlalchemy"}),
        ("trainer.accelerated.__main__", {"jax", "tensorflow", "keras", "openvino", "flask", "celery", "sqlalchemy"}),
    ],
)
def test_importing_a_program_does_not_bring_along_what_it_does_not_need(module: str, heavy: set[str]) -> None:
    brought = _brought_along(module) & heavy
    assert not brought, (
        f"`import {module}` brings {sorted(brought)}: every start of that process pays for it, in seconds and memory. "
        f"`python -X importtime -c 'import {module}'` shows who asks; import it inside the function that needs it."
    )


def test_rooms_import_only_what_they_may() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"An import contract of pyproject.toml is broken (docs/architecture.md says why they are):\n{done.stdout}"


SHIPPED = sorted(path.parent for path in registry.shipped_folder().glob("*/manifest.json"))


def test_at_least_one_model_is_shipped() -> None:
    assert SHIPPED, "trainer/pretrained holds no model: Lacuna could restore nothing."


def test_what_is_shipped_stays_small() -> None:
    assert sum(path.stat().st_size for folder in SHIPPED for path in folder.glob("*.safetensors")) <= 40e6


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_model_is_what_its_manifest_says(folder: Path) -> None:
    described = manifest.read(folder)
    again = "Export it again; a version that was released never changes, so other weights need another version."
    assert folder.name == described.reference, f"The folder {folder.name} holds {described.reference}: it would not be found by its name."
    if described.weights_sha256 is None:
        ClassicExecutor().load(folder)
        assert [path.name for path in folder.iterdir()] == ["manifest.json"], f"{folder.name}: a classical method has no other files."
        return
    weights = (folder / "weights.safetensors").read_bytes()
    tensors = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    tensors.pop("__metadata__", None)
    assert hashlib.sha256(weights).hexdigest() == described.weights_sha256, f"{folder.name}: its manifest names other weights. {again}"
    assert sum(prod(tensor["shape"]) for tensor in tensors.values()) == described.parameters, (
        f"{folder.name}: parameters miscounted. {again}"
    )
    assert {tensor["dtype"] for tensor in tensors.values()} <= {"F16", "F32"}, f"{folder.name}: weights are float16 or float32. {again}"


def test_decisions_are_numbered_without_gaps_and_say_context_decision_and_cost() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [int(path.name[:4]) for path in decisions]
    assert numbers == list(range(1, len(numbers) + 1)), f"docs/decisions: {numbers}; each decision has the next free number, once."
    for path in decisions:
        content = path.read_text(encoding="utf-8")
        lacking = [part for part in ("**Context.**", "**Decision.**", "**What it costs.**") if part not in content]
        assert not lacking, f"{path.name} lacks {lacking}."
        assert content.startswith(f"# {int(path.name[:4])}. "), f"{path.name}: its heading has another number."
        assert len(content.splitlines()) <= 40, f"{path.name} is longer than a page; a decision is short."


def test_the_licence_is_there_in_full() -> None:
    licence = text("LICENSE")
    assert "Apache License" in licence and "END OF TERMS AND CONDITIONS" in licence, "LICENSE is not the whole Apache License 2.0."
