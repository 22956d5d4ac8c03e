"""The registry of models: what is registered, and what a name means."""

import threading
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Table, event, insert, select, update
from sqlalchemy.exc import IntegrityError
from uuid_utils import uuid7

from shared.database.tables import aliases, defaults, models, owners
from shared.database.tables import jobs as jobs_table
from shared.errors import Fault, Outcome, Refused
from shared.jobs.job import Job, Kind, Lane, NewJob, Success, blob_key
from shared.jobs.store import Jobs
from shared.models.manifest import Manifest
from shared.models.store import Model, Models


def manifest(name: str, version: int, **cares: Any) -> Manifest:
    values = {
        "schema": 1, "name": name, "version": version, "task": "denoise", "architecture": "none", "config": {"widths": [8]},
        "weights_sha256": "a" * 64, "parameters": 1, "created_at": "2026-01-01T00:00:00Z", "base": None, "recipe": {},
        "data": [{"name": "made up", "sha256": "b" * 64, "images": 1, "terms": "none"}], "metrics": {}, "licence": "Apache-2.0",
    }  # fmt: skip
    return Manifest.model_validate({**values, **cares})


@pytest.fixture
def registry(engine: Engine) -> Models:
    return Models(engine)


def alias(engine: Engine, name: str, alias: str, version: int) -> None:
    with engine.begin() as connection:
        connection.execute(insert(aliases).values(name=name, alias=alias, version=version, changed_at=0))


def names(registry: Models) -> list[str]:
    return [one.manifest.reference for one in registry.list()]


def test_what_was_registered_comes_back_whole_in_order_of_name_and_version(registry: Models) -> None:
    given = [manifest("b", 10), manifest("b", 9), manifest("a", 1, metrics={"psnr": 31.5})]
    registry.register(given)
    assert registry.list() == [Model(one, "ready", None, None, None) for one in (given[2], given[1], given[0])]


def test_registering_again_changes_nothing(registry: Models) -> None:
    registry.register([manifest("a", 1)])
    registry.register([manifest("a", 1)])
    assert names(registry) == ["a@1"]


def test_a_version_never_changes_its_weights(registry: Models) -> None:
    registry.register([manifest("a", 1)])
    with pytest.raises(Fault) as fault:
        registry.register([manifest("b", 1), manifest("a", 1, weights_sha256="c" * 64)])
    assert fault.value.code == "artifact_invalid"
    assert names(registry) == ["a@1"], "a refused registration left something behind"


def test_the_newest_version_of_the_first_name_becomes_the_default(registry: Models) -> None:
    registry.register([manifest("a", 1), manifest("a", 2), manifest("b", 3), manifest("fill", 1, task="inpaint")])
    assert registry.defaults("local") == {"denoise": "a@2", "inpaint": "fill@1"}


def test_a_default_once_set_stays_when_a_newer_version_arrives(registry: Models) -> None:
    registry.register([manifest("a", 1)])
    registry.register([manifest("a", 1), manifest("a", 2)])
    assert registry.defaults("local") == {"denoise": "a@1"}
    assert registry.resolve("denoise", None, "local").reference == "a@1"


@pytest.mark.parametrize(("wanted", "means"), [(None, "b@3"), ("", "b@3"), ("a", "a@11"), ("a@2", "a@2"), ("a@02", "a@2"), ("b@3", "b@3")])
def test_a_name_means_its_newest_version_and_none_means_the_default(wanted: str | None, means: str, registry: Models) -> None:
    registry.register([manifest("b", 3)])
    registry.register([manifest("a", 2), manifest("a", 11)])
    assert registry.resolve("denoise", wanted, "local").reference == means


def test_a_bare_name_means_its_alias_prod_where_that_is_set(registry: Models, engine: Engine) -> None:
    registry.register([manifest("a", 1), manifest("a", 2), manifest("b", 1)])
    alias(engine, "a", "prod", 1)
    alias(engine, "a", "next", 2)
    assert [registry.resolve("denoise", wanted, "local").reference for wanted in ("a", "a@prod", "a@next", "b")] == [
        "a@1",
        "a@1",
        "a@2",
        "b@1",
    ]
    assert registry.aliases("local") == {"a@1": ["prod"], "a@2": ["next"]}


@pytest.mark.parametrize(
    "wanted",
    ["other", "a@7", "a@0", "a@-1", "a@next", "b@prod", "@1", "@", "a@1@1", "A", "a@²", "a@१", "a@99999999999999999999", "a@" + "9" * 5000],
)
def test_what_no_model_is_called_is_unknown_and_the_answer_lists_what_there_is(wanted: str, registry: Models, engine: Engine) -> None:
    registry.register([manifest("a", 1), manifest("b", 1), manifest("fill", 1, task="inpaint")])
    alias(engine, "a", "prod", 1)
    with pytest.raises(Refused) as refused:
        registry.resolve("denoise", wanted, "local")
    assert refused.value.code == "unknown_model"
    assert refused.value.fields == {"model": "unknown"}
    assert "a@1, b@1" in refused.value.detail
    assert "fill" not in refused.value.detail


@pytest.mark.parametrize("wanted", ["a", "a@1", "a@7", "a@prod"])
def test_a_model_of_another_task_is_refused_as_such(wanted: str, registry: Models) -> None:
    registry.register([manifest("a", 1), manifest("fill", 1, task="inpaint")])
    with pytest.raises(Refused) as refused:
        registry.resolve("inpaint", wanted, "local")
    assert refused.value.code == "model_task"
    assert refused.value.detail == "a does denoise, not inpaint; there are: fill@1."


def test_without_any_model_even_the_default_is_unknown(registry: Models) -> None:
    with pytest.raises(Refused, match="none"):
        registry.resolve("denoise", None, "local")


@pytest.mark.parametrize("wanted", [None, "a", "a@1", "a@prod"])
def test_a_version_that_is_not_ready_is_not_served(wanted: str | None, registry: Models, engine: Engine) -> None:
    registry.register([manifest("a", 1)])
    alias(engine, "a", "prod", 1)
    with engine.begin() as connection:
        connection.execute(update(models).values(state="preparing"))
    assert [found.state for found in registry.list()] == ["preparing"]
    with pytest.raises(Refused, match="unknown_model"):
        registry.resolve("denoise", wanted, "local")


def publishing(jobs: Jobs, registry: Models, described: Manifest, model_id: str) -> Job:
    """A job that makes `described` ready, as the API accepts it."""
    job_id = str(uuid7())
    new = NewJob(
        id=job_id, owner_id="local", kind=Kind.PUBLISH, lane=Lane.TRAIN, task="denoise", model_name=described.name,
        model_version=described.version, input={"name": described.reference, "key": blob_key(model_id, "weights")}, params={}, pixels=1,
        max_attempts=1, request_id="request",
    )  # fmt: skip
    return jobs.accept(new, alongside=[registry.preparing(described, model_id, job_id, "local")])


ONE, OTHER = "01900000-0000-7000-8000-0000000000aa", "01900000-0000-7000-8000-0000000000bb"


def test_an_added_model_is_in_preparation_until_its_job_succeeded_and_then_served(engine: Engine, registry: Models) -> None:
    jobs = Jobs(engine, 30)
    added = publishing(jobs, registry, manifest("mine", 1), ONE)
    found = registry.get("mine", 1)
    assert found == Model(manifest("mine", 1), "preparing", ONE, added.id, None)
    assert registry.kept_parts([ONE, OTHER]) == {ONE: None}
    with pytest.raises(Refused, match="unknown_model"):
        registry.resolve("denoise", "mine", "local")

    (claimed,) = jobs.claim("w:1", [Lane.TRAIN], 1, idle=True)
    key = blob_key(ONE, "exported.1")
    assert jobs.succeed([Success(claimed, {"bytes": 1}, key, [])]) == {(added.id, claimed.token)}
    assert registry.resolve("denoise", "mine", "local").reference == "mine@1"
    assert registry.kept_parts([ONE]) == {ONE: {blob_key(ONE, "weights"), key}}


@pytest.mark.parametrize("end", ["fail", "retry", "reap", "cancel", "cancel running"])
def test_however_its_job_ends_without_success_a_model_has_failed_and_gives_its_name_away(
    end: str, engine: Engine, registry: Models
) -> None:
    jobs = Jobs(engine, 30)
    added = publishing(jobs, registry, manifest("mine", 1), ONE)
    claimed = jobs.claim("w:1", [Lane.TRAIN], 1, idle=True) if end != "cancel" else []
    outcome = Outcome("internal", "", "", retryable=False)
    if end == "fail":
        assert jobs.fail(claimed[0], outcome)
    elif end == "retry":
        assert jobs.retry(claimed[0], outcome, 0)
    elif end == "reap":
        with engine.begin() as connection:
            connection.execute(update(jobs_table).values(lease_until=0))
        assert jobs.reap()
    else:
        assert jobs.cancel("local", added.id)
    assert [found.state for found in registry.list()] == ["failed"]
    assert registry.kept_parts([ONE]) == {ONE: set()}
    publishing(jobs, registry, manifest("mine", 1), OTHER)
    assert [(found.id, found.state) for found in registry.list()] == [(OTHER, "preparing")]


def test_an_attempt_that_is_made_again_leaves_the_model_in_preparation(engine: Engine, registry: Models) -> None:
    jobs = Jobs(engine, 30)
    publishing(jobs, registry, manifest("mine", 1), ONE)
    (claimed,) = jobs.claim("w:1", [Lane.TRAIN], 1, idle=True)
    assert jobs.release(claimed)
    assert [found.state for found in registry.list()] == ["preparing"]


@pytest.mark.parametrize("ready", [False, True])
def test_a_version_that_is_there_is_not_added_again_and_nothing_is_left_of_the_try(ready: bool, engine: Engine, registry: Models) -> None:
    jobs = Jobs(engine, 30)
    added = publishing(jobs, registry, manifest("mine", 1), ONE)
    if ready:
        (claimed,) = jobs.claim("w:1", [Lane.TRAIN], 1, idle=True)
        jobs.succeed([Success(claimed, {"bytes": 1}, "key", [])])
    with pytest.raises(Refused, match="mine@1 stays") as refused:
        publishing(jobs, registry, manifest("mine", 1, licence="another"), OTHER)
    assert refused.value.code == "model_exists"
    assert [job.id for job in jobs.page("local", {}, 10, None)] == [added.id]
    assert [found.id for found in registry.list()] == [ONE]


def test_the_name_of_a_shipped_model_is_not_taken_and_a_name_that_a_user_had_first_stays_theirs(engine: Engine, registry: Models) -> None:
    jobs = Jobs(engine, 30)
    registry.register([manifest("a", 1)])
    with pytest.raises(Refused, match="comes with Lacuna"):
        publishing(jobs, registry, manifest("a", 2), ONE)
    publishing(jobs, registry, manifest("mine", 1), ONE)
    failed = publishing(jobs, registry, manifest("ours", 1), OTHER)
    assert jobs.cancel("local", failed.id)
    registry.register([manifest("mine", 1, weights_sha256="c" * 64), manifest("mine", 2), manifest("ours", 1)])
    assert [(found.manifest.reference, found.id) for found in registry.list()] == [("a@1", None), ("mine@1", ONE), ("ours@1", None)]
    publishing(jobs, registry, manifest("mine", 3), OTHER)


def test_a_model_is_seen_by_its_owner_only_and_a_shipped_one_by_all(engine: Engine, registry: Models) -> None:
    registry.register([manifest("a", 1)])
    added = publishing(Jobs(engine, 30), registry, manifest("mine", 1), ONE)
    assert added.owner_id == "local"
    with engine.begin() as connection:
        connection.execute(update(models).where(models.c.name == "mine").values(state="ready"))
    assert [found.manifest.reference for found in registry.list("local")] == ["a@1", "mine@1"]
    assert [found.manifest.reference for found in registry.list("ben")] == ["a@1"]
    assert registry.resolve("denoise", "mine", "local").reference == "mine@1"
    for wanted in ("mine", "mine@1"):
        with pytest.raises(Refused, match="unknown_model") as refused:
            registry.resolve("denoise", wanted, "ben")
        assert "there are: a@1." in refused.value.detail


# -- whose names they are -----------------------------------------------------------------------------------------------


def owned(engine: Engine, owner: str, name: str, version: int, alias: str = "prod") -> None:
    with engine.begin() as connection:
        found = connection.execute(select(owners.c.id).where(owners.c.id == owner)).first()
        if found is None:
            connection.execute(insert(owners).values(id=owner, created_at=0))
        connection.execute(insert(aliases).values(owner_id=owner, name=name, alias=alias, version=version, changed_at=0))


def meant(registry: Models, owner: str, *wanted: str | None) -> list[str]:
    return [registry.resolve("denoise", one, owner).reference for one in wanted]


def test_an_owners_alias_stands_before_nobodys_and_another_owner_has_nobodys(registry: Models, engine: Engine) -> None:
    registry.register([manifest("a", 1), manifest("a", 2), manifest("a", 3)])
    alias(engine, "a", "prod", 2)
    alias(engine, "a", "next", 3)
    owned(engine, "anna", "a", 1)
    owned(engine, "anna", "a", 2, "own")
    assert meant(registry, "anna", "a", "a@prod", "a@next", "a@own") == ["a@1", "a@1", "a@3", "a@2"]
    assert meant(registry, "ben", "a", "a@prod", "a@next") == ["a@2", "a@2", "a@3"]
    with pytest.raises(Refused, match="unknown_model"):
        registry.resolve("denoise", "a@own", "ben")
    assert registry.aliases("anna") == {"a@1": ["prod"], "a@2": ["own"], "a@3": ["next"]}
    assert registry.aliases("ben") == {"a@2": ["prod"], "a@3": ["next"]}


def test_an_owners_default_stands_before_lacunas_also_after_an_update(registry: Models) -> None:
    registry.register([manifest("a", 1), manifest("fill", 1, task="inpaint")])
    registry.set_default("local", "denoise", "a@1")
    registry.register([manifest("a", 1), manifest("a", 2)])
    registry.set_default("local", "denoise", "a@2")
    registry.register([manifest("a", 1), manifest("a", 2)])
    assert (meant(registry, "local", None), meant(registry, "ben", None)) == (["a@2"], ["a@1"])
    assert registry.defaults("local") == {"denoise": "a@2", "inpaint": "fill@1"}
    assert registry.defaults("ben") == {"denoise": "a@1", "inpaint": "fill@1"}
    registry.remove_default("local", "denoise")
    assert registry.defaults("local") == registry.defaults("ben")


@pytest.mark.parametrize("wanted", [None, "a", "a@2", "a@prod"])
def test_a_name_is_resolved_by_one_statement(wanted: str | None, registry: Models, engine: Engine) -> None:
    registry.register([manifest("a", 1), manifest("a", 2)])
    alias(engine, "a", "prod", 1)
    said: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: said.append(statement))
    registry.resolve("denoise", wanted, "local")
    assert len([one for one in said if one != "BEGIN"]) == 1, said


@pytest.mark.parametrize("table", [aliases, defaults])
def test_nobody_has_a_name_twice(table: Table, registry: Models, engine: Engine) -> None:
    values: dict[str, Any] = {"name": "a", "version": 1}
    values |= {"alias": "prod", "changed_at": 0} if table is aliases else {"task": "denoise"}
    for owner in (None, "local"):
        with pytest.raises(IntegrityError), engine.begin() as connection:
            for _ in range(2):
                connection.execute(insert(table).values(owner_id=owner, **values))


def test_a_version_is_not_deleted_while_a_job_of_it_is_being_accepted(registry: Models, engine: Engine) -> None:
    jobs = Jobs(engine, 30)
    publishing(jobs, registry, manifest("mine", 1), ONE)
    (claimed,) = jobs.claim("w:1", [Lane.TRAIN], 1, idle=True)
    jobs.succeed([Success(claimed, {"bytes": 1}, "key", [])])
    said: list[str] = []

    def remove() -> None:
        try:
            registry.delete("local", "mine", 1)
            said.append("deleted")
        except Refused as refused:
            said.append(refused.code)

    remover = threading.Thread(target=remove)

    def alongside(connection: Connection) -> None:
        registry.held("mine", 1, "local")(connection)
        remover.start()
        remover.join(0.5)  # where nothing holds the version it is deleted here; else it waits for us, and we for nothing

    job = NewJob(
        id=str(uuid7()), owner_id="local", kind=Kind.RESTORE, lane=Lane.INTERACTIVE, task="denoise", model_name="mine", model_version=1,
        input={"key": "k"}, params={}, pixels=1, max_attempts=1, request_id="request",
    )  # fmt: skip
    jobs.accept(job, alongside=[alongside])
    remover.join()
    assert said == ["in_use"]
    assert registry.get("mine", 1) is not None
