from django.db import migrations, transaction

BATCH = 1000  # mailboxes that are locked at the same time
COUNT = """
    UPDATE messageservice_mailbox SET conversations =
        (SELECT count(*) FROM messageservice_conversation WHERE owner_id = user_id)
    WHERE user_id BETWEEN %s AND %s
"""


def count_conversations(apps, editor):
    """What the release before makes while it still serves is not counted; `check_mailboxes --repair` counts it."""
    mailboxes = apps.get_model("messageservice", "Mailbox").objects.order_by("pk").values_list("pk", flat=True)
    batch = [0]
    with editor.connection.cursor() as cursor:
        while batch:
            with transaction.atomic():
                batch = [*mailboxes.select_for_update().filter(pk__gt=batch[-1])[:BATCH]]
                if batch:
                    cursor.execute(COUNT, [batch[0], batch[-1]])


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("messageservice", "0003_stored_conversations"),
    ]

    operations = [
        migrations.RunPython(count_conversations, migrations.RunPython.noop),
    ]
