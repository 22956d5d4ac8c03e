"""What a training leaves on its way, figures of more than one thing, and weights that are fenced by their attempt."""

from alembic import op
import sqlalchemy as sa

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("checkpoint_key", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("artifacts", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("models", sa.Column("weights_key", sa.Text(), nullable=True))
    op.add_column("job_metrics", sa.Column("picture", sa.Text(), nullable=True))
    with op.batch_alter_table("job_metrics") as table:
        table.alter_column("of", existing_type=sa.String(16), type_=sa.String(140), existing_nullable=False)
