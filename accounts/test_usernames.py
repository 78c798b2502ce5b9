import os
from io import StringIO
from unittest import skipUnless
from unittest.mock import patch

from django.contrib.auth.models import User, UserManager
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client, TestCase, override_settings
from django.test.utils import CaptureQueriesContext

from accounts.models import user_named
from config.environment import Limit
from config.testing.cases import PASSWORD, ApiTestCase, ConcurrentTestCase, make_user

UNKNOWN = ["There is no such user."]


class AnyCaseTests(ApiTestCase):
    """A name in another letter case is the same name. Responses have it as registered."""

    def setUp(self):
        super().setUp()
        self.alice_client, self.bob_client = self.as_user(self.alice), self.as_user(self.bob)

    def log_in(self, username, password=PASSWORD):
        return self.client.post("/api/auth/login", {"username": username, "password": password})

    def send(self, receiver, **headers):
        return self.alice_client.post("/api/message", {"receiver": receiver, "content": "hi"}, headers=headers)

    def test_logs_in(self):
        for name in ("alice", "Alice", "aLICE"):
            with self.subTest(name):
                response = self.log_in(name)

                self.assertEqual(response.status_code, 200)
                self.assertEqual(response.json()["user"]["username"], "alice")
        self.assertEqual(self.events(), [("Login", "alice", "-")] * 3)

    def test_returns_a_name_in_capitals_as_registered(self):
        self.client.post("/api/auth/register", {"username": "DAVE", "password": PASSWORD})

        self.assertEqual(self.log_in("dave").json()["user"]["username"], "DAVE")
        self.assertEqual(self.send("Dave").json()["receiver"], "DAVE")

    def test_logs_a_failed_login_with_the_name_as_registered_or_as_typed_if_unknown(self):
        for name in ("ALICE", "Nobody"):
            self.log_in(name, "wrong")

        self.assertEqual(self.events(), [("Invalid Login", "alice", "-"), ("Invalid Login", "Nobody", "-")])

    def test_sends_lists_and_reads(self):
        message = self.send("BOB").json()

        self.assertEqual((message["sender"], message["receiver"]), ("alice", "bob"))
        for client, path in (
            (self.alice_client, "/api/message?user=bOB"),
            (self.alice_client, "/api/message/sent?receiver=Bob"),
            (self.bob_client, "/api/message/received?sender=ALICE"),
        ):
            with self.subTest(path):
                self.assertEqual(client.get(path).json()["results"], [message])
        response = self.bob_client.post("/api/conversation/ALICE/read", {"up_to": message["id"]})
        self.assertEqual((response.status_code, response.json()), (200, {"user": "alice", "unread": 0}))
        self.assertEqual(self.events(), [("Successful Message", "alice", "bob"), ("Read Conversation", "bob", "alice")])

    def test_sends_once_for_a_key(self):
        first, again = (self.send(name, **{"idempotency-key": "1"}) for name in ("bob", "BOB"))

        self.assertEqual((again.status_code, again.json()), (201, first.json()))
        self.assertEqual(again.headers["Idempotency-Replayed"], "true")

    def test_blocks_and_unblocks(self):
        blocked = self.bob_client.post("/api/block", {"blocked": "ALICE"})
        again = self.bob_client.post("/api/block", {"blocked": "Alice"})
        oneself = self.bob_client.post("/api/block", {"blocked": "BOB"})

        self.assertEqual((blocked.status_code, blocked.json()["blocked"]), (201, "alice"))
        self.assertEqual(again.json(), {"blocked": ["You already block this user."]})
        self.assertEqual(oneself.json(), {"blocked": ["You cannot block yourself."]})
        self.assertEqual(self.send("bob").status_code, 403)
        self.assertEqual(self.bob_client.delete("/api/block/aLICE").status_code, 204)
        self.assertEqual(self.send("bob").status_code, 201)
        self.assertIn(("Block User", "bob", "alice"), self.events())
        self.assertIn(("Unblock User", "bob", "alice"), self.events())

    def test_letters_outside_ascii_are_other_letters(self):
        """Some of them have an ASCII letter as their lower or upper case."""
        make_user("kis")
        others = {
            "\N{KELVIN SIGN}is": "k",
            "k\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}s": "i",
            "ki\N{LATIN SMALL LETTER LONG S}": "s",
        }
        for name in (*others, "k\N{LATIN SMALL LETTER DOTLESS I}s", "\N{FULLWIDTH LATIN SMALL LETTER K}is"):
            with self.subTest(ascii(name)):
                self.assertEqual(self.log_in(name).status_code, 400)
                self.assertEqual(self.send(name).json(), {"receiver": UNKNOWN})
                self.assertEqual(self.alice_client.get("/api/message", {"user": name}).json(), {"user": UNKNOWN})
                self.assertEqual(self.alice_client.delete(f"/api/block/{name}").status_code, 404)

    @override_settings(LIMIT_LOGIN=Limit(2, 60))
    def test_failures_count_for_the_same_name(self):
        statuses = [self.log_in(name, "wrong").status_code for name in ("alice", "ALICE", "Alice")]

        self.assertEqual(statuses, [400, 400, 429])
        self.assertEqual(self.log_in("aLICE").status_code, 429)

    def test_an_index_finds_the_name(self):
        index = {"postgresql": "accounts_username_in_any_case", "sqlite": "accounts_username_in_lower_case"}[
            connection.vendor
        ]
        with CaptureQueriesContext(connection) as queries:
            user_named("ALICE")
            User.objects.filter(username__any_case="ALICE").first()

        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SET LOCAL enable_seqscan = off")  # a table so small would be read whole
            for query in queries:
                cursor.execute(f"EXPLAIN {'QUERY PLAN' if connection.vendor == 'sqlite' else ''} {query['sql']}")

                self.assertIn(index, str(cursor.fetchall()))


@skipUnless(connection.vendor == "postgresql", "SQLite has no rules for languages")
class TurkishTests(ApiTestCase):
    """A database with rules by which I is not the capital of i."""

    def setUp(self):
        super().setUp()
        with connection.cursor() as cursor:
            cursor.execute('ALTER TABLE auth_user ALTER username TYPE varchar(150) COLLATE "tr-x-icu"')

    def test_letter_case_follows_ascii(self):
        statuses = [
            self.client.post("/api/auth/register", {"username": name, "password": PASSWORD}).status_code
            for name in ("ali", "ALI", "Ali", "ILSE", "ilse")
        ]
        logins = [
            self.client.post("/api/auth/login", {"username": name, "password": PASSWORD}).status_code
            for name in ("ALI", "ilse")
        ]

        self.assertEqual(statuses, [201, 400, 400, 201, 400])
        self.assertEqual(logins, [200, 200])

    def test_the_admin_finds_part_of_a_name(self):
        User.objects.create_superuser("operator", password=PASSWORD)
        admin = Client()
        admin.post("/admin/login/", {"username": "OPERATOR", "password": PASSWORD})

        found = admin.get("/admin/auth/user/?q=LIC").context["cl"].result_list

        self.assertEqual(list(found), [self.alice])


@skipUnless(connection.vendor == "postgresql", "SQLite keeps its index")
class MigrationTests(ConcurrentTestCase):
    """Replaces an index by the rules of the database with an index by ASCII, in which stored names may collide."""

    def setUp(self):
        super().setUp()
        self.addCleanup(call_command, "migrate", "accounts", verbosity=0)
        self.addCleanup(User.objects.all().delete)
        call_command("migrate", "accounts", "0002", verbosity=0)

    def indexes(self):
        with connection.cursor() as cursor:
            constraints = connection.introspection.get_constraints(cursor, "auth_user")
        return {name for name in constraints if name.startswith("accounts_")}

    def test_stops_until_names_that_collide_are_renamed(self):
        with connection.cursor() as cursor:
            cursor.execute("DROP INDEX accounts_username_in_lower_case")  # as if it allowed them, as in Turkish
        make_user("ALICE")
        make_user("Bob")
        make_user("bOb")

        with self.assertRaises(CommandError) as stopped:
            call_command("migrate", "accounts", verbosity=0)

        self.assertEqual(str(stopped.exception).splitlines()[1:3], ["alice, ALICE", "bob, Bob, bOb"])
        self.assertEqual(self.indexes(), set())
        for old, new in (("ALICE", "alice2"), ("Bob", "bob2"), ("bOb", "bob3")):
            call_command("rename_user", old, new, stdout=StringIO())
        call_command("migrate", "accounts", verbosity=0)
        self.assertEqual(self.indexes(), {"accounts_username_in_any_case"})

    def test_completes_after_an_interrupted_attempt(self):
        with connection.cursor() as cursor:
            cursor.execute("CREATE INDEX accounts_username_in_any_case ON auth_user (username)")

        call_command("migrate", "accounts", verbosity=0)

        self.assertEqual(self.indexes(), {"accounts_username_in_any_case"})
        with connection.cursor() as cursor:
            constraints = connection.introspection.get_constraints(cursor, "auth_user")
        self.assertTrue(constraints["accounts_username_in_any_case"]["unique"])


class RenameUserTests(ApiTestCase):
    def rename(self, old, new):
        output = StringIO()
        call_command("rename_user", old, new, stdout=output)
        return output.getvalue()

    def test_renames_the_user(self):
        alice = self.as_user(self.alice)

        self.assertEqual(self.rename("ALICE", "Alice-2"), "alice is now called Alice-2.\n")

        self.assertEqual(alice.get("/api/auth/user").json()["username"], "Alice-2")
        self.assertEqual(self.events(), [("Rename User", "alice", "Alice-2")])

    def test_changes_the_letter_case_of_a_name(self):
        self.rename("alice", "Alice")

        self.assertEqual(self.as_user(self.alice).get("/api/auth/user").json()["username"], "Alice")

    def test_rejects_a_name_that_nobody_can_register(self):
        for new in ("BOB", "deleted-1", "two words", "Zoë", "..", "", "x" * 151, "a\0b"):
            with self.subTest(new), self.assertRaises(CommandError):
                self.rename("alice", new)
        with self.assertRaisesMessage(CommandError, "There is no user dave."):
            self.rename("dave", "erin")
        self.assertEqual({*User.objects.values_list("username", flat=True)}, {"alice", "bob", "carol"})
        self.assertEqual(self.events(), [])

    def test_rejects_a_user_who_is_deleted_after_the_lookup(self):
        def find(name):
            user = user_named(name)
            User.objects.filter(pk=user.pk).delete()
            return user

        with (
            patch("accounts.management.commands.rename_user.user_named", find),
            self.assertRaisesMessage(CommandError, "This account was deleted."),
        ):
            self.rename("ALICE", "alice2")

        self.assertEqual(self.events(), [])


class CreateSuperuserTests(TestCase):
    def setUp(self):
        make_user("alice")

    def test_rejects_a_name_that_nobody_can_register(self):
        for name in ("alice", "ALICE", "Deleted-1", "Zoë", "..", "x" * 151):
            with self.subTest(name), self.assertRaises(CommandError):
                call_command("createsuperuser", username=name, email="", interactive=False)
        self.assertEqual(User.objects.count(), 1)

    def test_rejects_a_name_that_another_process_takes_in_the_meantime(self):
        create = UserManager.create_superuser

        def create_later(manager, **fields):
            make_user("Operator")
            with transaction.atomic():
                return create(manager, **fields)

        with (
            patch.object(UserManager, "create_superuser", create_later),
            self.assertRaisesMessage(CommandError, "A user with that username already exists."),
        ):
            call_command("createsuperuser", username="operator", email="", interactive=False)

        self.assertFalse(User.objects.filter(is_superuser=True).exists())

    def test_rejects_a_name_that_is_not_utf_8(self):
        with (
            patch.dict(os.environ, {"DJANGO_SUPERUSER_USERNAME": "\udcff"}),
            self.assertRaisesMessage(CommandError, "The username, email or password is not UTF-8."),
        ):
            call_command("createsuperuser", email="", interactive=False)

        self.assertEqual(User.objects.count(), 1)

    def test_asks_again(self):
        output, terminal = StringIO(), StringIO()
        terminal.isatty = lambda: True
        with (
            patch("builtins.input", side_effect=["Alice", "deleted-1", "operator", ""]),
            patch("getpass.getpass", return_value=PASSWORD),
        ):
            call_command("createsuperuser", username="ALICE", stdin=terminal, stdout=output, stderr=output)

        self.assertEqual(output.getvalue().count("already exists"), 2)
        self.assertIn("reserved", output.getvalue())
        self.assertTrue(User.objects.get(username="operator").is_superuser)


class ChangePasswordTests(ApiTestCase):
    new = "quite another secret"

    def change(self, username, password=new):
        with patch("getpass.getpass", return_value=password):
            call_command("changepassword", username, stdout=StringIO(), stderr=StringIO())

    def test_ends_only_the_sessions_of_the_user(self):
        User.objects.filter(username="alice").update(is_staff=True)
        alice, bob, admin = self.as_user(self.alice), self.as_user(self.bob), Client()
        admin.post("/admin/login/", {"username": "alice", "password": PASSWORD})

        self.change("ALICE")

        self.assertEqual([client.get("/api/auth/user").status_code for client in (alice, bob)], [401, 200])
        self.assertRedirects(admin.get("/admin/"), "/admin/login/?next=/admin/")
        credentials = [{"username": "alice", "password": password} for password in (PASSWORD, self.new)]
        self.assertEqual([self.client.post("/api/auth/login", each).status_code for each in credentials], [400, 200])

    def test_keeps_changes_made_while_it_asks(self):
        def change_email(prompt):
            User.objects.filter(username="alice").update(email="new@example.org")
            return self.new

        with patch("getpass.getpass", change_email):
            call_command("changepassword", "alice", stdout=StringIO())

        self.alice.refresh_from_db()
        self.assertEqual((self.alice.email, self.alice.check_password(self.new)), ("new@example.org", True))

    def test_rejects_an_account_that_is_deleted_while_it_asks(self):
        def delete(prompt):
            User.objects.filter(username="alice").delete()
            return self.new

        with patch("getpass.getpass", delete), self.assertRaisesMessage(CommandError, "This account was deleted."):
            call_command("changepassword", "alice", stdout=StringIO())

        self.assertEqual(self.events(), [])

    def test_rejects_input_without_a_password(self):
        for typed, error in ((EOFError, "The input ended"), (["pass\udcffword"] * 2, "The password is not UTF-8.")):
            with (
                self.subTest(error),
                patch("getpass.getpass", side_effect=typed),
                self.assertRaisesMessage(CommandError, error),
            ):
                call_command("changepassword", "alice", stdout=StringIO(), stderr=StringIO())

    def test_asks_three_times(self):
        typed, output = ["a", "b", "password1", "password1", self.new, self.new], StringIO()
        with patch("getpass.getpass", side_effect=typed):
            call_command("changepassword", "alice", stdout=output, stderr=output)

        for line in ("Passwords do not match", "too common", "Password changed successfully for user 'alice'"):
            self.assertIn(line, output.getvalue())

    def test_changes_nothing_for_an_unknown_user_or_a_weak_password(self):
        alice = self.as_user(self.alice)
        for username, password in (("nobody", self.new), ("alice", "password1")):
            with self.subTest(username), self.assertRaises(CommandError):
                self.change(username, password)
        self.assertEqual(alice.get("/api/auth/user").status_code, 200)
