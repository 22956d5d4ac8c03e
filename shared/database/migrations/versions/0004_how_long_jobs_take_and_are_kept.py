"""How long models take, and which jobs have been kept for long."""

from alembic import op
import sqlalchemy as sa

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rates",
        sa.Column("model_name", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("seconds_per_mpx", sa.Float(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("seconds_per_mpx >= 0", name=op.f("ck_rates_rate_not_negative")),
        sa.PrimaryKeyConstraint("model_name", "model_version", name=op.f("pk_rates")),
    )
    kept = sa.text("expires_at IS NULL AND finished_at IS NOT NULL")
    op.create_index("ix_jobs_kept", "jobs", ["finished_at"], unique=False, sqlite_where=kept, postgresql_where=kept)
