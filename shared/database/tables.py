"""Every table. Times are milliseconds since 1970, UTC, on the database's clock. CHECKs refuse impossible rows, each with its reason.

Some columns wait for their first user (batches, trainings, the registry): they are in the first migration, so that a
database from the first day needs no rebuilding.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from shared.jobs.job import FINAL, Kind, Lane, State

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

BATCH_STATES = ("open", "listing", "running", "paused", "succeeded", "completed_with_errors", "failed", "canceled")
NOTED_STATES = ("failed", "skipped", "ignored")  # of files that became no job
DATASET_STATES = ("ingesting", "ready", "failed")
DATASET_KINDS = ("clean", "paired", "noisy")
MODEL_STATES = ("preparing", "ready", "failed")
TASKS = ("denoise", "inpaint")


def _one_of(column: str, values: object) -> CheckConstraint:
    names = ", ".join(f"'{value}'" for value in values)  # type: ignore[attr-defined]
    return CheckConstraint(f"{column} IN ({names})", name=f"{column}_known")


Id = String(36)
Document = JSON(none_as_null=True)
_NOBODYS = text("owner_id IS NULL")
_OF_A_BATCH = text("batch_id IS NOT NULL")
_KEPT = text("expires_at IS NULL AND finished_at IS NOT NULL AND output IS NULL")
# the means of an evaluation and of a training's end: found by the model that they are of
_OF_A_MODEL = text("picture IS NULL AND epoch IS NULL AND \"of\" LIKE '%@%'")
# ended jobs of folders whose outputs are not known to be in their places, or whose attempts may have left something there
unsettled = text("output IS NOT NULL AND published_at IS NULL AND finished_at IS NOT NULL AND attempts > 0")

owners = Table(
    "owners",
    metadata,
    Column("id", Id, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner_id", Id, ForeignKey("owners.id"), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),  # of the key; the key itself is shown once and never stored
    Column("label", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

lanes = Table(
    "lanes",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("v", Float, nullable=False),  # the turn last claimed
    _one_of("name", Lane),
)

flows = Table(
    "flows",
    metadata,
    Column("owner_id", Id, ForeignKey("owners.id"), nullable=False),
    Column("batch_id", Id, nullable=False),  # '' for jobs of no batch
    Column("lane", String(16), ForeignKey("lanes.name"), nullable=False),
    Column("last_turn", Float, nullable=False),
    PrimaryKeyConstraint("owner_id", "batch_id", "lane"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner_id", Id, ForeignKey("owners.id"), nullable=False),
    Column("state", String(24), nullable=False),
    Column("reason", Text),
    Column("label", Text),
    Column("params", Document, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    _one_of("state", BATCH_STATES),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner_id", Id, ForeignKey("owners.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("lane", String(16), ForeignKey("lanes.name"), nullable=False),
    Column("task", String(16), nullable=False),
    Column("model_name", String(64), nullable=False),
    Column("model_version", Integer, nullable=False),
    Column("label", Text),
    Column("batch_id", Id, ForeignKey("batches.id")),
    Column("path", Text),
    Column("input", Document, nullable=False),
    Column("params", Document, nullable=False),
    Column("pixels", BigInteger, nullable=False),
    Column("token", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("turn", Float, nullable=False),
    Column("alone", Boolean(name="alone_boolean"), nullable=False),
    Column("worker", Text),
    Column("lease_until", BigInteger),
    Column("rung_at", BigInteger, nullable=False),  # when somebody last rang for it: upkeep rings again after a while
    Column("checkpoint_at_claim", Text),  # what the attempt before left: an attempt that leaves more does not count when it is lost
    Column("checkpoint_key", Text),  # the blob that a training goes on from
    Column("artifacts", Document),  # by name, what a training leaves on its way: a blob's key, bytes, sha256 and type
    Column("progress_done", Integer, nullable=False),
    Column("progress_total", Integer, nullable=False),
    Column("progress_unit", String(16), nullable=False),
    Column("result", Document),
    Column("result_key", Text),
    Column("metrics", Document),
    Column("notes", Document, nullable=False),
    Column("error", Document),
    Column("retry_of", Id),
    Column("request_id", String(64), nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("expires_at", BigInteger),  # written when that time is over: its files are going, or gone
    Column("published_at", BigInteger),  # when its output was put in its place, or what its attempts left was taken away
    Column("output", Document),  # of a picture read in place: where its output goes
    _one_of("kind", Kind),
    _one_of("state", State),
    # a lease without a running job would be reaped for nothing, a running job without one never
    CheckConstraint("(lease_until IS NOT NULL) = (state = 'running')", name="lease_while_running"),
    CheckConstraint("(worker IS NOT NULL) = (state = 'running')", name="worker_while_running"),
    CheckConstraint(
        f"(finished_at IS NOT NULL) = (state IN ({', '.join(sorted(repr(str(state)) for state in FINAL))}))", name="finished_when_final"
    ),
    # one outcome: a result for each success and for nothing else
    CheckConstraint("(result IS NOT NULL) = (state = 'succeeded')", name="result_of_success"),
    CheckConstraint("kind <> 'restore' OR (result_key IS NOT NULL) = (state = 'succeeded')", name="blob_of_success"),
    CheckConstraint("(error IS NOT NULL) = (state = 'failed')", name="error_of_failure"),
    # every attempt raised the token, so attempts can never be more
    CheckConstraint("attempts >= 0 AND attempts <= max_attempts AND attempts <= token", name="attempts_counted"),
    CheckConstraint("state <> 'running' OR (attempts > 0 AND started_at IS NOT NULL)", name="running_was_claimed"),
    CheckConstraint("progress_done >= 0 AND progress_done <= progress_total", name="progress_within"),
    Index("ix_jobs_due", "lane", "turn", "id", sqlite_where=text("state = 'queued'"), postgresql_where=text("state = 'queued'")),
    Index(
        "ix_jobs_flow",
        "owner_id",
        "lane",
        "turn",
        sqlite_where=text("state = 'queued' AND batch_id IS NULL"),
        postgresql_where=text("state = 'queued' AND batch_id IS NULL"),
    ),
    Index("ix_jobs_leases", "lease_until", sqlite_where=text("state = 'running'"), postgresql_where=text("state = 'running'")),
    Index("ix_jobs_owner", "owner_id", "id"),
    Index("ix_jobs_owner_state", "owner_id", "state", "id"),
    Index("ix_jobs_changed", "changed_at"),
    Index(
        "ix_jobs_kept",
        "finished_at",
        sqlite_where=_KEPT,
        postgresql_where=_KEPT,
    ),
    Index("ix_jobs_batch", "batch_id", "id", sqlite_where=_OF_A_BATCH, postgresql_where=_OF_A_BATCH),
    Index("ix_jobs_batch_state", "batch_id", "state", sqlite_where=_OF_A_BATCH, postgresql_where=_OF_A_BATCH),
    Index("ix_jobs_batch_path", "batch_id", "path", unique=True, sqlite_where=_OF_A_BATCH, postgresql_where=_OF_A_BATCH),
    Index("ix_jobs_batch_finished", "batch_id", "finished_at", sqlite_where=_OF_A_BATCH, postgresql_where=_OF_A_BATCH),
    Index("ix_jobs_unsettled", "batch_id", sqlite_where=unsettled, postgresql_where=unsettled),
)

job_metrics = Table(
    "job_metrics",
    metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),  # SQLite numbers rows itself where it is an INTEGER
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("of", String(140), nullable=False),  # restore: output, input; train: train, validation; evaluate: a model, input, a method
    Column("epoch", Integer),
    Column("picture", Text),  # of one picture; else the mean
    Column("protocol", Text, nullable=False),
    Column("loss", Float),
    Column("psnr", Float),
    Column("ssim", Float),
    Column("mse", Float),
    Column("rmse", Float),
    Column("mae", Float),
    Column("seconds", Float),
    Index("ix_job_metrics_models", "of", "job_id", sqlite_where=_OF_A_MODEL, postgresql_where=_OF_A_MODEL),
)

# files of a batch that became no job
items = Table(
    "items",
    metadata,
    Column("batch_id", Id, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("path", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("bytes", BigInteger),
    Column("sha256", String(64)),
    Column("error", Document),
    Column("note", String(24)),  # why it was passed over
    Column("noted_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("batch_id", "path"),
    _one_of("state", NOTED_STATES),
    CheckConstraint("(error IS NOT NULL) = (state = 'failed')", name="error_of_failure"),
    Index("ix_items_state", "batch_id", "state", "path"),
)

# what was published into folders, and from what: the same again is not restored again
outputs = Table(
    "outputs",
    metadata,
    Column("place", Text, primary_key=True),  # the file
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("source", Text, nullable=False),  # the file that it was restored from, as it was then
    Column("source_size", BigInteger, nullable=False),
    Column("source_mtime_ns", BigInteger, nullable=False),
    Column("source_inode", BigInteger, nullable=False),
    Column("source_sha256", String(64), nullable=False),
    Column("asked", String(64), nullable=False),  # a hash of the model version, the parameters, the mask and the reference
    Column("published_at", BigInteger, nullable=False),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner_id", Id, ForeignKey("owners.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("label", Text),
    Column("job_id", Id, nullable=False),  # what makes it ready
    Column("sha256", String(64)),  # of the contents, known when they are read
    Column("images", Integer),
    Column("pixels", BigInteger),
    Column("bytes", BigInteger),  # of its blobs
    Column("index_key", Text),  # the blobs of shared/datasets/packed.py
    Column("pixels_key", Text),
    Column("counts", Document),  # of the report, so that lists need not read it
    Column("report", Document),
    Column("error", Document),  # of the job, which may be deleted
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    _one_of("kind", DATASET_KINDS),
    _one_of("state", DATASET_STATES),
    CheckConstraint(
        "(state = 'ready') = (sha256 IS NOT NULL AND images IS NOT NULL AND pixels IS NOT NULL AND bytes IS NOT NULL"
        " AND index_key IS NOT NULL AND pixels_key IS NOT NULL)",
        name="whole_when_ready",
    ),
    CheckConstraint("(report IS NULL) = (counts IS NULL)", name="counted_report"),
    Index("ix_datasets_owner", "owner_id", "id"),
    Index("ix_datasets_job", "job_id"),
)

models = Table(
    "models",
    metadata,
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("owner_id", Id, ForeignKey("owners.id")),  # none: shipped with Lacuna, everybody's
    Column("task", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("manifest", Document, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("id", Id),  # what the keys of its blobs begin with; none: its files come with Lacuna
    Column("job_id", Id),  # what makes it ready
    Column("exported_key", Text),  # the blob of its exported network
    Column("weights_key", Text),  # the blob of its weights, where it was trained here; of an added one the key follows from the id
    PrimaryKeyConstraint("name", "version"),
    _one_of("task", TASKS),
    _one_of("state", MODEL_STATES),
)

aliases = Table(
    "aliases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("owner_id", Id, ForeignKey("owners.id")),  # none: everybody's who has none of their own
    Column("name", String(64), nullable=False),
    Column("alias", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    UniqueConstraint("owner_id", "name", "alias"),
    # nulls are never the same
    Index("ix_aliases_nobodys", "name", "alias", unique=True, sqlite_where=_NOBODYS, postgresql_where=_NOBODYS),
)

defaults = Table(
    "defaults",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("owner_id", Id, ForeignKey("owners.id")),  # none: it comes with Lacuna, for all who chose none
    Column("task", String(16), nullable=False),
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    _one_of("task", TASKS),
    UniqueConstraint("owner_id", "task"),
    Index("ix_defaults_nobodys", "task", unique=True, sqlite_where=_NOBODYS, postgresql_where=_NOBODYS),
)

retired = Table(
    "retired",
    metadata,
    Column("name", String(64), nullable=False),  # of a version that was ready once and was deleted: it never comes back as another
    Column("version", Integer, nullable=False),
    PrimaryKeyConstraint("name", "version"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("owner_id", Id, ForeignKey("owners.id"), nullable=False),
    Column("key", String(255), nullable=False),
    Column("token", Integer, nullable=False),
    Column("until", BigInteger, nullable=False),  # a request still being received; taken over when it lapsed
    Column("fingerprint", String(64)),
    Column("job_id", Id),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("owner_id", "key"),
    CheckConstraint("(job_id IS NULL) = (fingerprint IS NULL)", name="fulfilled_whole"),
)

rates = Table(
    "rates",
    metadata,
    Column("model_name", String(64), nullable=False),
    Column("model_version", Integer, nullable=False),
    Column("seconds_per_mpx", Float, nullable=False),  # that the network ran for: a mean in which the latest jobs weigh most
    Column("changed_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("model_name", "model_version"),
    CheckConstraint("seconds_per_mpx >= 0", name="rate_not_negative"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),  # host:process, as in jobs.worker
    Column("lanes", Document, nullable=False),
    Column("executor", String(16), nullable=False),
    Column("precision", String(16), nullable=False),
    Column("device", String(16), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),  # written whenever leases are renewed
)
