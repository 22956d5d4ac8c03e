"""Files of a batch that became no job, folders that are read in place, and what stands in the folders of outputs."""

from alembic import op
import sqlalchemy as sa

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("items")  # nothing was ever written into it
    op.create_table(
        "items",
        sa.Column("batch_id", sa.String(length=36), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("note", sa.String(length=24), nullable=True),
        sa.Column("noted_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('failed', 'skipped', 'ignored')", name=op.f("ck_items_state_known")),
        sa.CheckConstraint("(error IS NOT NULL) = (state = 'failed')", name=op.f("ck_items_error_of_failure")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_items_batch_id_batches"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "path", name=op.f("pk_items")),
    )
    op.create_index("ix_items_state", "items", ["batch_id", "state", "path"])
    op.create_table(
        "outputs",
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("source_size", sa.BigInteger(), nullable=False),
        sa.Column("source_mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("source_inode", sa.BigInteger(), nullable=False),
        sa.Column("source_sha256", sa.String(length=64), nullable=False),
        sa.Column("asked", sa.String(length=64), nullable=False),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("place", name=op.f("pk_outputs")),
    )
    op.add_column("jobs", sa.Column("output", sa.JSON(none_as_null=True), nullable=True))
    unsettled = sa.text("output IS NOT NULL AND published_at IS NULL AND finished_at IS NOT NULL AND attempts > 0")
    op.create_index("ix_jobs_unsettled", "jobs", ["batch_id"], sqlite_where=unsettled, postgresql_where=unsettled)
    of_a_batch = sa.text("batch_id IS NOT NULL")
    op.create_index("ix_jobs_batch_finished", "jobs", ["batch_id", "finished_at"], sqlite_where=of_a_batch, postgresql_where=of_a_batch)
    op.drop_index("ix_jobs_kept", "jobs")
    kept = sa.text("expires_at IS NULL AND finished_at IS NOT NULL AND output IS NULL")
    op.create_index("ix_jobs_kept", "jobs", ["finished_at"], sqlite_where=kept, postgresql_where=kept)
