"""docs/architecture.md is compared with the code it draws."""

import re
import sqlite3
from pathlib import Path

from server.migration import migrate
from shared.jobs.job import FINAL, MOVES, Kind, Lane, Move, State
from shared.settings import Settings
from tests.documents.pages import ROOT, blocks, rows, section

PAGE = "docs/architecture.md"
PACKAGES = ("api", "client", "server", "shared", "trainer", "worker")
ARROW = re.compile(r"^\s*(\S+) --> (\S+?)(?:: (\S+))?$")


def _arrows() -> list[tuple[str, str, str]]:
    """(from, to, label) of each arrow of the picture; `[*]` is before and after a job's life."""
    (picture,) = blocks(section(PAGE, "## The states and the moves"), "mermaid")
    lines = [line for line in picture.splitlines() if line.strip() and line.strip() != "stateDiagram-v2"]
    found = [ARROW.match(line) for line in lines]
    odd = [line for line, match in zip(lines, found, strict=True) if match is None]
    assert not odd, f"{PAGE}: these lines of the picture are no arrows that the test can read: {odd}. Write `from --> to: move`."
    return [(match[1], match[2], match[3] or "") for match in found if match is not None]


def test_the_picture_has_the_arrows_of_the_table_of_moves_and_no_others() -> None:
    drawn = {arrow for arrow in _arrows() if "[*]" not in arrow}
    legal = {(str(one), str(other), str(move)) for move, (before, after) in MOVES.items() for one in before for other in after}
    assert drawn == legal, (
        f"{PAGE} draws other moves than MOVES in shared/jobs/job.py allows. Undrawn: {sorted(legal - drawn)}; "
        f"drawn, but not legal: {sorted(drawn - legal)}. Decide which is right, then change the other."
    )


def test_the_picture_begins_with_accept_and_ends_in_the_final_states() -> None:
    arrows = _arrows()
    begins = [(to, label) for one, to, label in arrows if one == "[*]"]
    ends = sorted(one for one, to, _ in arrows if to == "[*]")
    assert begins == [("queued", "accept")], f"{PAGE}: a job's life begins with accept, in queued; the picture says {begins}."
    assert ends == sorted(FINAL), f"{PAGE}: the states that end a job's life are {sorted(FINAL)}; the picture says {ends}."


def test_every_arrow_is_drawn_once() -> None:
    arrows = _arrows()
    assert len(arrows) == len(set(arrows)), f"{PAGE} draws an arrow twice: {sorted({one for one in arrows if arrows.count(one) > 1})}."


def test_every_move_has_its_line_in_the_table_below_the_picture() -> None:
    named = [row[0] for row in rows(section(PAGE, "## The states and the moves"), "| move | who | when | what it writes |")]
    expected = ["accept", *map(str, Move)]
    assert named == expected, f"{PAGE}: the table of moves names {named}; shared/jobs/job.py has {expected}, in this order."


def test_every_file_of_the_walk_exists() -> None:
    markdown = section(PAGE, "## The walk of one restoration")
    rooms = [row[1] for row in rows(markdown, "| # | room (file) | what happens | left behind | if it dies here |")]
    named = [name for room in [*rooms, markdown] for name in re.findall(r"`([\w/]+\.py)`", room)]
    missing = sorted({name for name in named if not (ROOT / name).is_file()})
    assert not missing, f"{PAGE}: the walk leads through rooms that do not exist: {missing}. Was a file renamed? Name the new one."


def test_the_walk_has_nine_rows_and_each_names_a_file() -> None:
    walk = rows(section(PAGE, "## The walk of one restoration"), "| # | room (file) | what happens | left behind | if it dies here |")
    assert [row[0] for row in walk] == [str(number) for number in range(1, 10)], (
        f"{PAGE}: tests/promises/ kill the program in each row of the walk and name the rows by number; keep the numbers in step with them."
    )
    bare = [row[0] for row in walk if not re.search(r"`[\w/]+\.py`", row[1])]
    assert not bare, f"{PAGE}: rows {bare} of the walk name no file, so nobody can follow them."


def _drawn() -> dict[str, bool]:
    """Path → whether things are drawn below it, of the layout drawing."""
    (drawing,) = blocks(section(PAGE, "## The layout"), "text")
    found: dict[str, bool] = {}
    above: list[str] = []
    for line in drawing.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        above[depth:] = [name]
        found["".join(above)] = False
        if depth:
            found["".join(above[:depth])] = True
    return found


def test_every_file_and_folder_of_the_layout_drawing_exists() -> None:
    missing = [path for path in _drawn() if not ((ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file())]
    assert not missing, f"{PAGE}: the layout draws what does not exist: {missing}. Take it out, or name what it is called now."


def test_a_folder_whose_files_are_drawn_has_all_of_them_drawn() -> None:
    drawn = _drawn()
    folders = [path for path, open_ in drawn.items() if open_ and path.split("/")[0] in PACKAGES]
    present = [path.relative_to(ROOT).as_posix() for folder in folders for path in sorted((ROOT / folder).glob("*.py"))]
    undrawn = [path for path in present if path not in drawn and not Path(path).name.startswith("__")]
    assert not undrawn, f"{PAGE}: the layout says nothing of {undrawn}. Give each a line with its purpose."


def _allowed(create: str, constraint: str) -> list[str]:
    """The values that a CHECK `column IN (…)` of a CREATE TABLE statement names."""
    found = re.search(rf"CONSTRAINT {constraint} CHECK \(\w+ IN \(([^)]*)\)\)", create)
    assert found, f"There is no CHECK {constraint} in the migrated database; without it a row can hold a value that no program knows."
    return re.findall(r"'([^']*)'", found[1])


def test_the_database_knows_exactly_the_states_kinds_and_lanes_of_the_code(tmp_path: Path) -> None:
    migrate(Settings(home=tmp_path))
    with sqlite3.connect(tmp_path / "lacuna.db") as connection:
        created = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall())
        lanes = [name for (name,) in connection.execute("SELECT name FROM lanes")]
    connection.close()
    advice = "shared/jobs/job.py and the migrated database differ: a value that one of them does not know ends as an error at run time. "
    advice += "Write a migration that brings the CHECK to the code's values."
    assert sorted(_allowed(created["jobs"], "ck_jobs_state_known")) == sorted(State), advice
    assert sorted(_allowed(created["jobs"], "ck_jobs_kind_known")) == sorted(Kind), advice
    assert sorted(_allowed(created["lanes"], "ck_lanes_name_known")) == sorted(Lane), advice
    assert sorted(lanes) == sorted(Lane), "The rows of the table `lanes` are not the lanes of shared/jobs/job.py; jobs refer to them."
