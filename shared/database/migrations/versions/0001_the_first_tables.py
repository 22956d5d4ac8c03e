"""The first tables, the lanes, and the owner of jobs where no keys are used."""

from alembic import op
import sqlalchemy as sa

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("alias", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "alias", name=op.f("pk_aliases")),
    )
    op.create_table(
        "defaults",
        sa.Column("task", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("task IN ('denoise', 'inpaint')", name=op.f("ck_defaults_task_known")),
        sa.PrimaryKeyConstraint("task", name=op.f("pk_defaults")),
    )
    op.create_table(
        "lanes",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("v", sa.Float(), nullable=False),
        sa.CheckConstraint("name IN ('interactive', 'bulk', 'train')", name=op.f("ck_lanes_name_known")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lanes")),
    )
    op.create_table(
        "owners",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_owners")),
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("params", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "state IN ('open', 'listing', 'running', 'paused', 'succeeded', 'completed_with_errors', 'failed', 'canceled')",
            name=op.f("ck_batches_state_known"),
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name=op.f("fk_batches_owner_id_owners")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("report", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('clean', 'paired', 'noisy')", name=op.f("ck_datasets_kind_known")),
        sa.CheckConstraint("state <> 'ready' OR sha256 IS NOT NULL", name=op.f("ck_datasets_hash_when_ready")),
        sa.CheckConstraint("state IN ('ingesting', 'ready', 'failed')", name=op.f("ck_datasets_state_known")),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name=op.f("fk_datasets_owner_id_owners")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
    )
    op.create_table(
        "flows",
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("batch_id", sa.String(length=36), nullable=False),
        sa.Column("lane", sa.String(length=16), nullable=False),
        sa.Column("last_turn", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["lane"], ["lanes.name"], name=op.f("fk_flows_lane_lanes")),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name=op.f("fk_flows_owner_id_owners")),
        sa.PrimaryKeyConstraint("owner_id", "batch_id", "lane", name=op.f("pk_flows")),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name=op.f("fk_keys_owner_id_owners")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_keys_sha256")),
    )
    op.create_table(
        "models",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=True),
        sa.Column("task", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("manifest", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('preparing', 'ready', 'failed')", name=op.f("ck_models_state_known")),
        sa.CheckConstraint("task IN ('denoise', 'inpaint')", name=op.f("ck_models_task_known")),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name=op.f("fk_models_owner_id_owners")),
        sa.PrimaryKeyConstraint("name", "version", name=op.f("pk_models")),
    )
    op.create_table(
        "reservations",
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=True),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("(job_id IS NULL) = (fingerprint IS NULL)", name=op.f("ck_reservations_fulfilled_whole")),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name=op.f("fk_reservations_owner_id_owners")),
        sa.PrimaryKeyConstraint("owner_id", "key", name=op.f("pk_reservations")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("lane", sa.String(length=16), nullable=False),
        sa.Column("task", sa.String(length=16), nullable=False),
        sa.Column("model_name", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("batch_id", sa.String(length=36), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("input", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("params", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("pixels", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Float(), nullable=False),
        sa.Column("alone", sa.Boolean(name="alone_boolean"), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("rung_at", sa.BigInteger(), nullable=False),
        sa.Column("checkpoint_at_claim", sa.Text(), nullable=True),
        sa.Column("progress_done", sa.Integer(), nullable=False),
        sa.Column("progress_total", sa.Integer(), nullable=False),
        sa.Column("progress_unit", sa.String(length=16), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("result_key", sa.Text(), nullable=True),
        sa.Column("metrics", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("notes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("retry_of", sa.String(length=36), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("published_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("(error IS NOT NULL) = (state = 'failed')", name=op.f("ck_jobs_error_of_failure")),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('canceled', 'failed', 'succeeded'))", name=op.f("ck_jobs_finished_when_final")
        ),
        sa.CheckConstraint("(lease_until IS NOT NULL) = (state = 'running')", name=op.f("ck_jobs_lease_while_running")),
        sa.CheckConstraint("(result IS NOT NULL) = (state = 'succeeded')", name=op.f("ck_jobs_result_of_success")),
        sa.CheckConstraint("(worker IS NOT NULL) = (state = 'running')", name=op.f("ck_jobs_worker_while_running")),
        sa.CheckConstraint("kind <> 'restore' OR (result_key IS NOT NULL) = (state = 'succeeded')", name=op.f("ck_jobs_blob_of_success")),
        sa.CheckConstraint("kind IN ('restore', 'train', 'evaluate', 'ingest', 'publish')", name=op.f("ck_jobs_kind_known")),
        sa.CheckConstraint("state <> 'running' OR (attempts > 0 AND started_at IS NOT NULL)", name=op.f("ck_jobs_running_was_claimed")),
        sa.CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'canceled')", name=op.f("ck_jobs_state_known")),
        sa.CheckConstraint("attempts >= 0 AND attempts <= max_attempts AND attempts <= token", name=op.f("ck_jobs_attempts_counted")),
        sa.CheckConstraint("progress_done >= 0 AND progress_done <= progress_total", name=op.f("ck_jobs_progress_within")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_jobs_batch_id_batches")),
        sa.ForeignKeyConstraint(["lane"], ["lanes.name"], name=op.f("fk_jobs_lane_lanes")),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name=op.f("fk_jobs_owner_id_owners")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_jobs_batch",
            ["batch_id", "id"],
            unique=False,
            sqlite_where=sa.text("batch_id IS NOT NULL"),
            postgresql_where=sa.text("batch_id IS NOT NULL"),
        )
        batch_op.create_index("ix_jobs_changed", ["changed_at"], unique=False)
        batch_op.create_index(
            "ix_jobs_due",
            ["lane", "turn", "id"],
            unique=False,
            sqlite_where=sa.text("state = 'queued'"),
            postgresql_where=sa.text("state = 'queued'"),
        )
        batch_op.create_index(
            "ix_jobs_leases",
            ["lease_until"],
            unique=False,
            sqlite_where=sa.text("state = 'running'"),
            postgresql_where=sa.text("state = 'running'"),
        )
        batch_op.create_index("ix_jobs_owner", ["owner_id", "id"], unique=False)
        batch_op.create_index("ix_jobs_owner_state", ["owner_id", "state", "id"], unique=False)

    op.create_table(
        "items",
        sa.Column("batch_id", sa.String(length=36), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("inode", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'succeeded', 'failed', 'skipped', 'canceled', 'ignored')", name=op.f("ck_items_state_known")
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_items_batch_id_batches"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_items_job_id_jobs")),
        sa.PrimaryKeyConstraint("batch_id", "path", name=op.f("pk_items")),
    )
    with op.batch_alter_table("items", schema=None) as batch_op:
        batch_op.create_index("ix_items_state", ["batch_id", "state"], unique=False)

    op.create_table(
        "job_metrics",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("of", sa.String(length=16), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=True),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("loss", sa.Float(), nullable=True),
        sa.Column("psnr", sa.Float(), nullable=True),
        sa.Column("ssim", sa.Float(), nullable=True),
        sa.Column("mse", sa.Float(), nullable=True),
        sa.Column("rmse", sa.Float(), nullable=True),
        sa.Column("mae", sa.Float(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_metrics_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_metrics")),
    )
    with op.batch_alter_table("job_metrics", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_metrics_job_id"), ["job_id"], unique=False)

    lanes = sa.table("lanes", sa.column("name", sa.String), sa.column("v", sa.Float))
    op.bulk_insert(lanes, [{"name": name, "v": 0.0} for name in ("interactive", "bulk", "train")])
    owners = sa.table("owners", sa.column("id", sa.String), sa.column("created_at", sa.BigInteger))
    op.bulk_insert(owners, [{"id": "local", "created_at": 0}])  # whose jobs are where no keys are used
