from django.core.management.base import CommandError
from django.db import migrations

OLD, NEW = "accounts_username_in_lower_case", "accounts_username_in_any_case"
COLLIDING = """
    SELECT string_agg(username, ', ' ORDER BY id) FROM auth_user
    GROUP BY lower(username COLLATE "C") HAVING count(*) > 1 ORDER BY min(id)
"""


def compare_by_ascii_rules(apps, editor):
    """On PostgreSQL `lower` follows the rules of the database: with Turkish ones the lower case of ALI is not ali."""
    if editor.connection.vendor != "postgresql":
        return
    with editor.connection.cursor() as cursor:
        cursor.execute(COLLIDING)
        colliding = [names for (names,) in cursor.fetchall()]
        if colliding:
            raise CommandError(
                "Nothing was changed, because these users have the same name, apart from letter case:\n"
                + "\n".join(colliding)
                + "\nRename all but one of each line with: manage.py rename_user OLD NEW"
            )
        cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NEW}")  # what an attempt that failed left
        cursor.execute(f'CREATE UNIQUE INDEX CONCURRENTLY {NEW} ON auth_user (lower(username COLLATE "C"))')
        cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {OLD}")


def compare_by_rules_of_the_database(apps, editor):
    if editor.connection.vendor == "postgresql":
        with editor.connection.cursor() as cursor:
            cursor.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {OLD} ON auth_user (lower(username))")
            cursor.execute(f"DROP INDEX CONCURRENTLY {NEW}")


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("accounts", "0002_tally")]

    operations = [migrations.RunPython(compare_by_ascii_rules, compare_by_rules_of_the_database)]
