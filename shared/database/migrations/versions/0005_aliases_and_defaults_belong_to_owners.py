"""Aliases and defaults belong to owners; what is there belongs to nobody, and holds for all. And the names of versions that were deleted."""

from alembic import op
import sqlalchemy as sa

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    aliases = connection.execute(sa.text("SELECT name, alias, version, changed_at FROM aliases")).mappings().all()
    defaults = connection.execute(sa.text("SELECT task, name, version FROM defaults")).mappings().all()
    op.drop_table("aliases")
    op.drop_table("defaults")
    new_aliases = op.create_table(
        "aliases",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("owner_id", sa.String(length=36)),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("alias", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name=op.f("fk_aliases_owner_id_owners")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_aliases")),
        sa.UniqueConstraint("owner_id", "name", "alias", name=op.f("uq_aliases_owner_id_name_alias")),
    )
    new_defaults = op.create_table(
        "defaults",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("owner_id", sa.String(length=36)),
        sa.Column("task", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("task IN ('denoise', 'inpaint')", name=op.f("ck_defaults_task_known")),
        sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name=op.f("fk_defaults_owner_id_owners")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_defaults")),
        sa.UniqueConstraint("owner_id", "task", name=op.f("uq_defaults_owner_id_task")),
    )
    nobodys = sa.text("owner_id IS NULL")
    op.create_index("ix_aliases_nobodys", "aliases", ["name", "alias"], unique=True, sqlite_where=nobodys, postgresql_where=nobodys)
    op.create_index("ix_defaults_nobodys", "defaults", ["task"], unique=True, sqlite_where=nobodys, postgresql_where=nobodys)
    op.bulk_insert(new_aliases, [dict(row) for row in aliases])
    op.bulk_insert(new_defaults, [dict(row) for row in defaults])
    op.create_table(
        "retired",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name=op.f("pk_retired")),
    )
