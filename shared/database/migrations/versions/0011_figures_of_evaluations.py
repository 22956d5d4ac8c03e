"""Figures are found by what they are of, and may be more than 2 147 483 647 in a database's life."""

from alembic import op
import sqlalchemy as sa

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":  # SQLite's own are of 64 bit
        op.alter_column("job_metrics", "id", existing_type=sa.Integer(), type_=sa.BigInteger(), existing_nullable=False)
        op.execute("ALTER SEQUENCE job_metrics_id_seq AS bigint")
    means_of_models = sa.text("picture IS NULL AND epoch IS NULL AND \"of\" LIKE '%@%'")
    op.create_index(
        "ix_job_metrics_models", "job_metrics", ["of", "job_id"], sqlite_where=means_of_models, postgresql_where=means_of_models
    )
