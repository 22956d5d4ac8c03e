"""docs/http_api.md is compared with the API; links are followed on every page."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

from api import restorations
from api.app import MODULES, create_app
from api.openapi import describe
from api.schemas import EvaluationBody, JobView, Problem, RestorationForm, TrainingBody
from api.wiring import Ports
from shared.errors import CODES
from shared.trainings.recipe import Parameters
from tests.documents.pages import ROOT, blocks, difference, rows, section, sources, text

PAGE = "docs/http_api.md"


def _not_opened() -> Ports:
    raise AssertionError("describing the API must open nothing")


def _operations() -> dict[tuple[str, str], str]:
    """(method, path) → summary, as the API's own OpenAPI document says."""
    document = describe([operation for module in MODULES for operation in module.routes.operations], "0")
    return {
        (method.upper(), path): described["summary"] for path, methods in document["paths"].items() for method, described in methods.items()
    }


def _rules() -> set[tuple[str, str]]:
    """(method, path) of everything that the application answers."""
    app = create_app(_not_opened)
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_every_route_has_its_row_with_its_summary_and_no_other_is_promised() -> None:
    found = rows(section(PAGE, "## Routes"), "| method | path | what it does |")
    expected = [(method, f"`{path}`", summary) for (method, path), summary in _operations().items()]
    wrong = difference(PAGE, found, expected)
    assert not wrong, f"{wrong}\nThe table repeats the first line of each view's docstring (api/)."


def test_every_page_that_is_no_part_of_openapi_has_its_row() -> None:
    found = rows(section(PAGE, "## Routes"), "| page | what it shows |")
    expected = {path for method, path in _rules() - set(_operations())}
    named = {row[0].strip("`") for row in found}
    assert named == expected, f"{PAGE}: pages without a row: {sorted(expected - named)}; rows without a page: {sorted(named - expected)}."


def test_every_address_that_any_page_names_is_answered() -> None:
    patterns = [re.compile(re.sub(r"\\{\w+\\}", r"[^/\\s]+", re.escape(path))) for _, path in _rules()]
    named = {
        (page.name, address.rstrip(".,"))
        for page in sources()
        if page.suffix == ".md"
        for address in re.findall(r"(?<![\w.])/(?:v1|problems)/[\w{}./-]*", page.read_text(encoding="utf-8"))
    }
    unknown = sorted((page, address) for page, address in named if not any(pattern.fullmatch(address) for pattern in patterns))
    assert not unknown, f"These pages name addresses that answer 404: {unknown}."


def test_every_problem_code_has_its_row_and_no_other_is_promised() -> None:
    found = rows(section(PAGE, "## Problems"), "| status | code | title | what to do |")
    expected = [(str(kind.status), f"`{code}`", kind.title, kind.advice) for code, kind in CODES.items()]
    wrong = difference(PAGE, found, expected)
    assert not wrong, f"{wrong}\nThe table repeats CODES in shared/errors.py. A code, once shipped, keeps its meaning."


def test_every_note_has_its_row_and_no_other_is_promised() -> None:
    said = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "shared" / "imaging").rglob("*.py"))
    notes = set(re.findall(r'"([a-z]+(?:_[a-z]+)*_(?:expanded|dropped|reduced|changed|cmyk)|exif_corrupt|trailing_bytes)"', said))
    notes |= {f"{name}_dropped" for name in ("exif", "xmp", "iptc", "profile")}  # written with the name of what is dropped
    found = {name.strip("` ") for row in rows(text(PAGE), "| note | what it means |") for name in row[0].split(",")}
    assert found == notes, f"{PAGE}: notes without a row: {sorted(notes - found)}; that nobody writes: {sorted(found - notes)}."


def test_every_field_of_the_form_has_its_row() -> None:
    named = {row[0].strip("`") for row in rows(text(PAGE), "| field | default | meaning |")}
    expected = {*restorations.FILES, *RestorationForm.model_fields}
    assert named == expected, f"{PAGE}: fields without a row: {sorted(expected - named)}; that are refused: {sorted(named - expected)}."


def test_every_field_of_a_training_and_an_evaluation_has_its_row() -> None:
    for what, expected in {
        "training": set(TrainingBody.model_fields) - set(Parameters.model_fields) | {"task"},
        "evaluation": set(EvaluationBody.model_fields),
    }.items():
        of = rows(text(PAGE), f"| field of {'an' if what[0] == 'e' else 'a'} {what} | default | meaning |")
        named = {name.strip(" `") for row in of for name in row[0].split(",")}
        assert named == expected, f"{PAGE}: fields without a row: {sorted(expected - named)}; that are refused: {sorted(named - expected)}."


def test_the_jobs_and_problems_that_the_page_shows_have_the_fields_of_real_ones() -> None:
    shown = [json.loads(block) for block in blocks(text(PAGE), "json")]
    assert shown, f"{PAGE} shows no answer; show one of each kind."
    for body in shown:
        if "kind" in body:
            JobView.model_validate(body)
        elif "code" in body:
            Problem.model_validate(body)
            kind = CODES[body["code"]]
            assert (body["title"], body["status"]) == (kind.title, kind.status), (
                f"{PAGE}: {body['code']} is shown with an old title or status."
            )


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_and_to_files_lead_somewhere() -> None:
    broken = []
    for page in (path for path in sources() if path.suffix == ".md"):
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(<?([^)>\s]+)>?\)", prose):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / unquote(path)) if path else page
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken, f"Links that lead nowhere: {broken}. Was a file or a heading renamed?"
