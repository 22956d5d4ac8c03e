"""Pictures of batches: counted by state, and each at a path of its own."""

from alembic import op
import sqlalchemy as sa

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    of_a_batch = sa.text("batch_id IS NOT NULL")
    op.create_index("ix_jobs_batch_state", "jobs", ["batch_id", "state"], sqlite_where=of_a_batch, postgresql_where=of_a_batch)
    op.create_index("ix_jobs_batch_path", "jobs", ["batch_id", "path"], unique=True, sqlite_where=of_a_batch, postgresql_where=of_a_batch)
