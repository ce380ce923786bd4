"""The model registry in PostgreSQL: its client, its outbox, its migrations."""
