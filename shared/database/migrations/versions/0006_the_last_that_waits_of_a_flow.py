"""An index that finds the last of a flow that waits: where the flow goes on when a job is canceled."""

from alembic import op
import sqlalchemy as sa

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    waiting = sa.text("state = 'queued' AND batch_id IS NULL")
    op.create_index("ix_jobs_flow", "jobs", ["owner_id", "lane", "turn"], sqlite_where=waiting, postgresql_where=waiting)
