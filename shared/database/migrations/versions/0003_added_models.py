"""Where the files of added models lie, and the jobs that make them ready."""

from alembic import op
import sqlalchemy as sa

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("id", sa.String(length=36)))
    op.add_column("models", sa.Column("job_id", sa.String(length=36)))
    op.add_column("models", sa.Column("exported_key", sa.Text()))
