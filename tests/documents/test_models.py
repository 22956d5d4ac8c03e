"""The pages of shipped models: each has one, and it says what the manifest says."""

import re

import pytest

from benchmarks.cards import FAILURES, FOLDER, page
from shared.models import registry
from shared.models.manifest import Manifest

WITH_WEIGHTS = [found for found in registry.shipped() if found.parameters]


@pytest.mark.parametrize("found", WITH_WEIGHTS, ids=lambda found: found.reference)
def test_its_page_is_its_card_and_shows_where_it_fails(found: Manifest) -> None:
    path = FOLDER / f"{found.reference}.md"
    assert path.is_file(), "`python -m benchmarks.cards` makes it"
    text = path.read_text(encoding="utf-8")
    assert text == page(found, text), "`python -m benchmarks.cards` makes it anew"
    failures = text.partition(FAILURES)[2]
    assert len(failures.split()) > 30, "Say by hand what it does badly."
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", failures):
        assert (FOLDER / picture).is_file(), picture


def test_there_is_no_page_of_a_model_that_is_not_shipped() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == {found.reference for found in WITH_WEIGHTS}
