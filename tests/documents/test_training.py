"""docs/training.md is compared with the recipe and the commands of the trainer."""

import json

from shared.trainings.recipe import Recipe
from tests.documents.pages import rows, section, text
from trainer.__main__ import main as trainer
from trainer.accelerated.__main__ import main as accelerated
from trainer.accelerated.stages import STAGES

PAGE = "docs/training.md"


def test_every_field_of_the_recipe_has_its_row_with_its_default() -> None:
    found = [row[:2] for row in rows(section(PAGE, "## train"), "| field | default | meaning |")]
    expected = [(f"`{name}`", f"`{json.dumps(default)}`") for name, default in Recipe().model_dump(mode="json").items()]
    assert found == expected, (
        f"{PAGE} and Recipe in shared/trainings/recipe.py differ. Only on the page: {[row for row in found if row not in expected]}; "
        f"only in the code: {[row for row in expected if row not in found]}; or the order is another."
    )


def test_every_command_and_option_of_the_trainer_is_on_the_page() -> None:
    page = text(PAGE)
    for name, command in trainer.commands.items():
        assert f"python -m trainer {name}" in page, f"{PAGE} does not say how to call `python -m trainer {name}`."
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        lacking = [option for option in options if option not in page]
        assert not lacking, f"{PAGE} says nothing of {lacking} of `python -m trainer {name}`."


def test_every_stage_and_option_of_the_trainer_for_gpus_is_in_its_section() -> None:
    told = section(PAGE, "## On a GPU, without the service")
    options = [option for parameter in accelerated.params for option in parameter.opts if option.startswith("--")]
    lacking = [name for name in (*STAGES, *options) if name not in told]
    assert not lacking, f"{PAGE} says nothing of {lacking} of `python -m trainer.accelerated`."
