"""docs/training.md is compared with the recipe and the commands of the trainer."""

import json

from tests.documents.pages import rows, section, text
from trainer.__main__ import main as trainer
from trainer.loop import Recipe

PAGE = "docs/training.md"


def test_every_field_of_the_recipe_has_its_row_with_its_default() -> None:
    found = [row[:2] for row in rows(section(PAGE, "## train"), "| field | default | meaning |")]
    expected = [(f"`{name}`", f"`{json.dumps(field.get_default())}`") for name, field in Recipe.model_fields.items()]
    assert found == expected, (
        f"{PAGE} and Recipe in trainer/loop.py differ. Only on the page: {[row for row in found if row not in expected]}; "
        f"only in the code: {[row for row in expected if row not in found]}; or the order is another."
    )


def test_every_command_and_option_of_the_trainer_is_on_the_page() -> None:
    page = text(PAGE)
    for name, command in trainer.commands.items():
        assert f"python -m trainer {name}" in page, f"{PAGE} does not say how to call `python -m trainer {name}`."
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        lacking = [option for option in options if option not in page]
        assert not lacking, f"{PAGE} says nothing of {lacking} of `python -m trainer {name}`."
