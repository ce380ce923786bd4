"""The registry's schema as text, read from the catalogue, so that two databases can be compared line by line.

Owns: which properties of a schema count.
Must not know: what the schema should be.
Invariant: the same schema gives the same text on every server of the versions we support, whoever owns it.
"""

from pathlib import Path

import psycopg

from tests.support.servers import Databases, shared_endpoints

#: The schema after all migrations.
SNAPSHOT = Path(__file__).parents[1] / "integration" / "schema.txt"

_QUERIES = {
    "column": """
        SELECT format('%s.%s %s%s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
            CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
            CASE a.attidentity WHEN 'a' THEN ' always identity' WHEN 'd' THEN ' default identity' ELSE '' END,
            coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''))
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname !~ '^_?yoyo'
            AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY c.relname, a.attnum
    """,
    # Constraints of type n are newer servers' spelling of the columns' not null.
    "constraint": """
        SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conrelid::regclass::text !~ '^_?yoyo'
    """,
    "index": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename !~ '^_?yoyo'",
    "view": """
        SELECT format('%s %s', relname, pg_get_viewdef(oid)) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
    """,
    "trigger": """
        SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
        WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal
    """,
    "function": "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "grant": """
        SELECT format('%s on %s to %s', g.privilege_type, g.what, coalesce(r.rolname, 'public'))
        FROM (
            SELECT c.relname AS what, (aclexplode(c.relacl)).* FROM pg_class AS c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relname !~ '^_?yoyo'
            UNION ALL
            SELECT c.relname || '.' || a.attname, (aclexplode(a.attacl)).* FROM pg_attribute AS a
            JOIN pg_class AS c ON c.oid = a.attrelid WHERE c.relnamespace = 'public'::regnamespace
            UNION ALL
            SELECT p.oid::regprocedure::text, (aclexplode(p.proacl)).* FROM pg_proc AS p
            WHERE p.pronamespace = 'public'::regnamespace
        ) AS g LEFT JOIN pg_roles AS r ON r.oid = g.grantee
        WHERE g.grantee = 0 OR r.rolname LIKE 'signal\\_%'
    """,
}


def describe_schema(database_url: str) -> str:
    """Return every property of the registry's schema that counts."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        lines = []
        for kind, query in _QUERIES.items():
            found = [str(row[0]).strip() for row in connection.execute(query)]
            lines += [f"{kind} {text}" for text in (found if kind == "column" else sorted(found))]
    return "\n".join(lines) + "\n"


def write_snapshot() -> None:
    """Migrate a new database and write what its schema became."""
    with shared_endpoints() as endpoints:
        databases = Databases(endpoints.database_url)
        with databases.migrated() as url:
            SNAPSHOT.write_text(describe_schema(url), encoding="utf-8")
        databases.close()


if __name__ == "__main__":
    write_snapshot()
