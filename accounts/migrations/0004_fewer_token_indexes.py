from django.db import migrations


def drop_indexes(apps, editor):
    """Tokens are found by digest, their primary key, and by user. Knox's other indexes take two fifths of their bytes."""
    table = apps.get_model("knox", "AuthToken")._meta.db_table
    concurrently = "CONCURRENTLY" if editor.connection.vendor == "postgresql" else ""
    with editor.connection.cursor() as cursor:
        indexes = editor.connection.introspection.get_constraints(cursor, table)
        for name, index in indexes.items():
            if index["index"] and not index["unique"] and index["columns"] in (["digest"], ["token_key"]):
                cursor.execute(f"DROP INDEX {concurrently} {editor.quote_name(name)}")


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("accounts", "0003_username_unique_by_ascii_rules"),
        ("knox", "0009_extend_authtoken_field"),
    ]

    operations = [migrations.RunPython(drop_indexes, migrations.RunPython.noop)]
