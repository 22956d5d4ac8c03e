"""What is known of data sets: their jobs, their blobs, what was found in them."""

from alembic import op
import sqlalchemy as sa

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("datasets")  # nothing was ever written into it
    op.create_table(
        "datasets",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("images", sa.Integer(), nullable=True),
        sa.Column("pixels", sa.BigInteger(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("index_key", sa.Text(), nullable=True),
        sa.Column("pixels_key", sa.Text(), nullable=True),
        sa.Column("counts", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("report", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('clean', 'paired', 'noisy')", name=op.f("ck_datasets_kind_known")),
        sa.CheckConstraint("state IN ('ingesting', 'ready', 'failed')", name=op.f("ck_datasets_state_known")),
        sa.CheckConstraint(
            "(state = 'ready') = (sha256 IS NOT NULL AND images IS NOT NULL AND pixels IS NOT NULL AND bytes IS NOT NULL"
            " AND index_key IS NOT NULL AND pixels_key IS NOT NULL)",
            name=op.f("ck_datasets_whole_when_ready"),
        ),
        sa.CheckConstraint("(report IS NULL) = (counts IS NULL)", name=op.f("ck_datasets_counted_report")),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name=op.f("fk_datasets_owner_id_owners")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
    )
    op.create_index("ix_datasets_owner", "datasets", ["owner_id", "id"])
    op.create_index("ix_datasets_job", "datasets", ["job_id"])
