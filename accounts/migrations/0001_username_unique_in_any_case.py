from django.db import migrations


class Migration(migrations.Migration):
    """No two names that differ in letter case alone, also if several accounts are created at the same time."""

    dependencies = [("auth", "0012_alter_user_first_name_max_length")]

    operations = [
        migrations.RunSQL(
            "CREATE UNIQUE INDEX accounts_username_in_lower_case ON auth_user (lower(username))",
            "DROP INDEX accounts_username_in_lower_case",
        ),
    ]
