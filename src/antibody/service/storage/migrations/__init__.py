"""Alembic's migrations. Make one after a change of the tables: see docs/service.md."""
