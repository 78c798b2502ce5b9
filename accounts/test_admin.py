import itertools
import re
from unicodedata import normalize
from unittest.mock import patch

from django.contrib.auth.models import Group, Permission, User
from django.db import IntegrityError, OperationalError, connection
from django.db.models import ProtectedError, QuerySet
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from accounts.authentication import AuthToken, issue_token
from config.environment import Limit
from config.testing.cases import PASSWORD, AdminTestCase

PAGES = [
    "/admin/",
    "/admin/password_change/",
    "/admin/auth/user/",
    "/admin/knox/authtoken/",
    "/admin/blocking/block/",
    "/admin/messageservice/message/",
]


class OperatorLoginTests(AdminTestCase):
    def test_opens_every_page(self):
        for page in PAGES:
            with self.subTest(page):
                html = self.page(page)
                self.assertIn("Offline Messaging", html)
                self.assertIn("Log out", html)
        self.assertIn('href="/api/docs"', self.page("/admin/"))

    def test_sections_have_readable_names(self):
        sections = {section["name"]: section for section in self.admin.get("/admin/").context["app_list"]}

        self.assertEqual(
            {name: [model["name"] for model in section["models"]] for name, section in sections.items()},
            {"Accounts": ["Groups", "Users"], "Blocks": ["Blocks"], "Messages": ["Messages"], "Tokens": ["Tokens"]},
        )

    def test_names_the_operator_in_the_logs(self):
        self.page("/admin/")

        self.assertEqual(self.events(), [("Login", "operator", "-")])
        self.assertEqual(self.log_lines("requests")[-1]["user"], "operator")

    def test_takes_the_name_in_any_letter_case(self):
        self.admin = self.log_in_to_admin("OPERATOR")

        self.page("/admin/")
        self.assertEqual(self.events(), [("Login", "operator", "-")] * 2)

    def test_takes_the_password_in_any_unicode_form(self):
        new = "Zürich café geheim"
        form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
        self.admin.post("/admin/password_change/", form)

        typed = {"username": "operator", "password": normalize("NFD", new)}
        self.assertRedirects(Client().post("/admin/login/?next=/admin/", typed), "/admin/")

    def test_redirects_everyone_else_to_the_login(self):
        strangers = {
            "no log-in": Client(),
            "an ordinary user": self.log_in_to_admin("alice"),
            "an ordinary user's token": self.as_user(self.alice),
            "the operator's token": self.as_user(self.operator),
        }

        for who, client in strangers.items():
            for page in PAGES:
                with self.subTest(who, page=page):
                    self.assertRedirects(client.get(page), f"/admin/login/?next={page}")
        self.assertIn(("Invalid Login", "alice", "-"), self.events())

    def test_rejects_a_nul_in_a_cookie(self):
        for page, name in itertools.product(("/admin/", "/admin/login/"), ("sessionid", "messages")):
            with self.subTest(page, name=name):
                response = Client().get(page, headers={"cookie": name + r'="\000\000\000\000\000\000\000\000"'})

                self.assertEqual((response.status_code, response.json()), (400, {"detail": "Malformed request."}))
        self.assertEqual(self.log_lines("debug"), [])

    @override_settings(LIMIT_LOGIN=Limit(2, 60))
    def test_counts_failures_together_with_the_api(self):
        wrong = {"username": "operator", "password": "wrong"}
        Client().post("/admin/login/", wrong)
        self.client.post("/api/auth/login", wrong)

        response = Client().post("/admin/login/", {"username": "operator", "password": PASSWORD})

        self.assertEqual(response.status_code, 429)
        self.assertIn("Retry-After", response)

    def test_redirects_only_to_pages_of_this_site(self):
        for url, page in {
            "/admin/login/": "/admin/",
            "/admin/login/?next=": "/admin/",
            "/admin/login/?next=/admin/auth/user/": "/admin/auth/user/",
            "/admin/login/?next=//evil.example": "/admin/",
            "/admin/login/?next=https://evil.example/admin/": "/admin/",
            "/admin/login/?next=javascript:alert(1)": "/admin/",
            "/admin/login/?next=http://[": "/admin/",
        }.items():
            with self.subTest(url):
                response = Client().post(url, {"username": "operator", "password": PASSWORD})

                self.assertRedirects(response, page, fetch_redirect_response=False)

    def test_does_not_count_a_missing_field_as_a_failure(self):
        response = Client().post("/admin/login/", {"username": "operator"})

        self.assertContains(response, "This field is required.")
        self.assertNotIn(("Invalid Login", "operator", "-"), self.events())


class OwnPasswordTests(AdminTestCase):
    NEW = "quite another secret"

    def change(self, old_password):
        form = {"old_password": old_password, "new_password1": self.NEW, "new_password2": self.NEW}
        return self.admin.post("/admin/password_change/", form)

    def test_ends_every_other_session_and_revokes_tokens(self):
        operator = self.as_user(self.operator)
        other_session = self.log_in_to_admin("operator")

        self.assertRedirects(self.change(PASSWORD), "/admin/password_change/done/")

        self.assertEqual(operator.get("/api/auth/user").status_code, 401)
        self.assertRedirects(other_session.get("/admin/"), "/admin/login/?next=/admin/")
        self.page("/admin/")
        self.assertEqual(
            self.events()[-2:], [("Revoke Tokens", "operator", "operator"), ("Change Password", "operator", "-")]
        )

    def test_changes_nothing_if_tokens_cannot_be_revoked(self):
        with patch.object(QuerySet, "delete", side_effect=OperationalError):
            self.assertEqual(self.change(PASSWORD).status_code, 503)

        self.operator.refresh_from_db()
        self.assertTrue(self.operator.check_password(PASSWORD))

    @override_settings(LIMIT_PASSWORD=Limit(2, 300))
    def test_counts_wrong_passwords_together_with_the_api(self):
        operator = self.as_user(self.operator)
        wrong = {"current_password": "wrong", "new_password": self.NEW}

        self.assertContains(self.change("wrong"), "Your old password was entered incorrectly")
        self.assertEqual(operator.post("/api/auth/password", wrong).status_code, 400)
        self.assertEqual(self.change(PASSWORD).status_code, 429)

        self.operator.refresh_from_db()
        self.assertTrue(self.operator.check_password(PASSWORD))


class SecretsTests(AdminTestCase):
    def setUp(self):
        super().setUp()
        self.token, self.text = issue_token(self.alice)

    def assert_no_secret(self, html):
        *_, salt, digest = self.alice.password.split("$")
        for secret in (self.text, self.token.digest, self.token.token_key, "argon2", salt[:6], digest[:6]):
            self.assertNotIn(secret, html)

    def test_no_page_shows_a_hash_or_a_token(self):
        user = f"/admin/auth/user/{self.alice.pk}"

        for page in [*PAGES, f"{user}/change/", f"{user}/password/", f"{user}/history/", f"{user}/delete/"]:
            with self.subTest(page):
                self.assert_no_secret(self.page(page))

    def test_no_page_for_view_only_staff_shows_a_hash_or_a_token(self):
        self.bob.is_staff = True
        self.bob.save()
        self.bob.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
        self.admin = self.log_in_to_admin("bob")

        for page in [*PAGES, f"/admin/auth/user/{self.alice.pk}/change/"]:
            with self.subTest(page):
                self.assert_no_secret(self.page(page))

    def test_the_page_that_confirms_a_deletion_shows_no_secret(self):
        response = self.admin.post("/admin/auth/user/", {"action": "delete_selected", "_selected_action": [self.alice.pk]})

        self.assertContains(response, "alice, with their tokens and other data")
        self.assert_no_secret(response.content.decode())

    def test_no_url_reveals_a_secret_letter_by_letter(self):
        for query in (
            "/admin/knox/authtoken/?digest__startswith=a",
            "/admin/knox/authtoken/?token_key__startswith=a",
            "/admin/knox/authtoken/?user__password__startswith=a",
            "/admin/auth/user/?auth_token_set__digest__startswith=a",
            "/admin/auth/user/?auth_token_set__token_key__startswith=a",
            "/admin/auth/user/?password__startswith=a",
            "/admin/messageservice/message/?sender__password__startswith=a",
            "/admin/blocking/block/?blocker__password__startswith=a",
        ):
            with self.subTest(query):
                self.assertEqual(self.admin.get(query).status_code, 400)


class UserTests(AdminTestCase):
    def act(self, action, *users):
        return self.admin.post("/admin/auth/user/", {"action": action, "_selected_action": [user.pk for user in users]})

    def change(self, user, **changes):
        form = self.admin.get(f"/admin/auth/user/{user.pk}/change/").context["adminform"].form
        fields = {name: value for name, value in form.initial.items() if name in form.fields and value not in (None, False)}
        return self.admin.post(f"/admin/auth/user/{user.pk}/change/", {**fields, **changes})

    def add(self, username):
        return self.admin.post(
            "/admin/auth/user/add/",
            {"username": username, "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD},
        )

    def test_deactivates_users_and_revokes_their_tokens(self):
        alice, carol = self.as_user(self.alice), self.as_user(self.carol)

        self.act("deactivate_users", self.alice, self.bob)

        self.assertEqual(alice.get("/api/auth/user").status_code, 401)
        self.assertEqual(carol.get("/api/auth/user").status_code, 200)
        self.assertEqual(list(User.objects.filter(is_active=False).order_by("pk")), [self.alice, self.bob])
        self.assertEqual(list(AuthToken.objects.values_list("user__username", flat=True)), ["carol"])
        self.assertCountEqual(
            self.events(),
            [
                ("Login", "operator", "-"),
                ("Deactivate User", "operator", "alice"),
                ("Deactivate User", "operator", "bob"),
            ],
        )
        self.assertIn("Deactivated.", self.page(f"/admin/auth/user/{self.alice.pk}/history/"))

    def test_an_operator_who_selects_all_stays_active(self):
        self.act("deactivate_users", self.alice, self.operator)

        self.alice.refresh_from_db()
        self.operator.refresh_from_db()
        self.assertEqual((self.alice.is_active, self.operator.is_active), (False, True))

    def test_revokes_tokens_without_deactivating(self):
        alice = self.as_user(self.alice)

        self.act("revoke_tokens_of_users", self.alice)

        self.assertEqual(alice.get("/api/auth/user").status_code, 401)
        self.alice.refresh_from_db()
        self.assertTrue(self.alice.is_active)
        self.assertEqual(self.events()[1:], [("Revoke Tokens", "operator", "alice")])

    def test_deactivating_on_the_page_of_a_user_revokes_tokens(self):
        self.as_user(self.alice)

        self.assertRedirects(self.change(self.alice, is_active=""), "/admin/auth/user/")

        self.alice.refresh_from_db()
        self.assertFalse(self.alice.is_active)
        self.assertFalse(self.alice.auth_token_set.exists())

    def test_another_change_keeps_tokens_and_name(self):
        self.as_user(self.alice)

        self.assertRedirects(self.change(self.alice, email="a@example.com", username="mallory"), "/admin/auth/user/")

        self.alice.refresh_from_db()
        self.assertEqual((self.alice.username, self.alice.email), ("alice", "a@example.com"))
        self.assertTrue(self.alice.auth_token_set.exists())

    def set_password(self, new):
        form = {"usable_password": "true", "password1": new, "password2": new, "set-password": ""}
        return self.admin.post(f"/admin/auth/user/{self.alice.pk}/password/", form)

    def test_sets_no_password_if_tokens_cannot_be_revoked(self):
        with patch.object(QuerySet, "delete", side_effect=OperationalError):
            self.assertEqual(self.set_password("quite another secret").status_code, 503)

        self.alice.refresh_from_db()
        self.assertTrue(self.alice.check_password(PASSWORD))

    def test_a_new_password_revokes_tokens(self):
        alice = self.as_user(self.alice)
        new = "quite another secret"

        self.set_password(new)

        self.assertEqual(alice.get("/api/auth/user").status_code, 401)
        response = self.client.post("/api/auth/login", {"username": "alice", "password": new})
        self.assertEqual(response.status_code, 200)

    def test_disabling_the_password_revokes_tokens(self):
        alice = self.as_user(self.alice)

        page = f"/admin/auth/user/{self.alice.pk}/password/"
        response = self.admin.post(page, {"usable_password": "false", "unset-password": "Disable"})

        self.assertRedirects(response, f"/admin/auth/user/{self.alice.pk}/change/")
        self.assertEqual(alice.get("/api/auth/user").status_code, 401)
        self.assertFalse(User.objects.get(username="alice").has_usable_password())
        self.assertIn(("Revoke Tokens", "operator", "alice"), self.events())

    def test_writes_only_the_columns_that_the_form_changes(self):
        with CaptureQueriesContext(connection) as queries:
            self.change(self.alice, email="alice@example.org", first_name="Alice")

        written = [query["sql"] for query in queries if query["sql"].startswith('UPDATE "auth_user"')]
        self.assertEqual(
            [re.findall('"([a-z_]+)" = ', sql.partition(" WHERE ")[0]) for sql in written], [["first_name", "email"]]
        )
        self.alice.refresh_from_db()
        self.assertEqual((self.alice.email, self.alice.first_name), ("alice@example.org", "Alice"))

    def test_adds_a_user_who_can_log_in(self):
        self.add("dave")

        response = self.client.post("/api/auth/login", {"username": "dave", "password": PASSWORD})
        self.assertEqual(response.status_code, 200)

    def test_names_follow_the_rules_of_registration(self):
        for name in ("ALICE", "Deleted-1", "Zoë", "..", "two words", "\N{CYRILLIC SMALL LETTER A}lice", "a/b", "x" * 151):
            with self.subTest(name):
                self.assertContains(self.add(name), "errorlist")

        self.assertEqual(User.objects.count(), 4)

    def test_deletes_a_user_without_messages(self):
        self.as_user(self.alice)

        self.assertRedirects(
            self.admin.post(f"/admin/auth/user/{self.alice.pk}/delete/", {"post": "yes"}), "/admin/auth/user/"
        )

        self.assertFalse(User.objects.filter(username="alice").exists())
        self.assertEqual(self.events()[-1], ("Delete Account", "operator", "alice"))

    def test_deletes_no_user_who_gets_a_message_meanwhile(self):
        with patch.object(User, "delete", side_effect=ProtectedError("", set())):
            response = self.admin.post(f"/admin/auth/user/{self.alice.pk}/delete/", {"post": "yes"})

        self.assertEqual((response.status_code, response.json()), (403, {"detail": "alice has messages."}))
        self.assertNotIn("Delete Account", [event for event, _, _ in self.events()])

    def test_adds_no_user_whose_name_is_taken_meanwhile(self):
        with patch.object(User, "save", side_effect=IntegrityError):
            response = self.add("dave")

        self.assertEqual(
            (response.status_code, response.json()), (400, {"username": ["A user with that username already exists."]})
        )

    def test_shows_a_user_whose_hash_is_malformed(self):
        for password_hash in ("", "!", "abc", "argon2", "argon2$garbage", "pbkdf2_sha256$abc$salt$x"):
            with self.subTest(password_hash):
                User.objects.filter(pk=self.alice.pk).update(password=password_hash)

                self.assertIn("Reset password", self.page(f"/admin/auth/user/{self.alice.pk}/change/"))

    def test_searches_by_part_of_a_name(self):
        for part in ("bob", "BO", "oB"):
            with self.subTest(part):
                self.assertEqual(self.list_rows(f"/admin/auth/user/?q={part}"), [self.bob])
        self.assertEqual(self.list_rows("/admin/auth/user/?q=b_b"), [])

    def test_shows_times_in_utc(self):
        for path, times in {
            "": (self.operator.date_joined,),
            f"{self.operator.pk}/change/": (self.operator.date_joined, User.objects.get(username="operator").last_login),
        }.items():
            for time in times:
                with self.subTest(path, time=time):
                    self.assertIn(f"{time:%Y-%m-%d %H:%M:%S} UTC", self.page(f"/admin/auth/user/{path}"))


class StaffTests(AdminTestCase):
    """bob and carol are staff, bob with every permission; the operator and dave are superusers."""

    def setUp(self):
        super().setUp()
        User.objects.filter(pk__in=[self.bob.pk, self.carol.pk]).update(is_staff=True)
        self.bob.user_permissions.set(Permission.objects.all())
        self.admin = self.log_in_to_admin("bob")
        self.group = Group.objects.create(name="helpers")
        self.bob.groups.add(self.group)
        dave = User.objects.create(username="dave", is_superuser=True)
        self.others = (self.carol, self.operator, dave)
        for user in (self.alice, *self.others):
            issue_token(user)

    def post(self, path, **form):
        return self.admin.post(f"/admin/auth/{path}", form).status_code

    def act(self, action, *users, **form):
        return self.post("user/", action=action, _selected_action=[user.pk for user in users], post="yes", **form)

    def form(self, **changes):
        return {"email": "", "is_active": "on", **changes}

    def state(self, *users):
        """The accounts with their tokens, permissions and groups."""
        return [
            (
                User.objects.values("username", "password", "email", "is_active", "is_staff", "is_superuser").get(
                    pk=user.pk
                ),
                *(sorted(rows.values_list("pk", flat=True)) for rows in (user.auth_token_set, user.groups)),
                user.user_permissions.count(),
            )
            for user in users
        ]

    def test_cannot_change_accounts_of_other_staff(self):
        before = self.state(*self.others)
        password = {"usable_password": "true", "password1": "quite another 1", "password2": "quite another 1"}

        for user in self.others:
            path = f"user/{user.pk}"
            for action, form in {
                "change": self.form(email="mallory@example.com", is_active=""),
                "password": {**password, "set-password": ""},
                "delete": {"post": "yes"},
            }.items():
                with self.subTest(user, action=action):
                    self.assertEqual(self.post(f"{path}/{action}/", **form), 403)
                    self.assertEqual(self.state(*self.others), before)
            for action in ("deactivate_users", "revoke_tokens_of_users", "delete_selected"):
                for selected in ({}, {"select_across": "1"}):
                    with self.subTest(user, action=action, selected=selected):
                        self.act(action, user, **selected)
                        self.assertEqual(self.state(*self.others), before)

    def test_can_view_accounts_of_other_staff(self):
        for user in self.others:
            html = self.page(f"/admin/auth/user/{user.pk}/change/")

            self.assertNotIn('<input type="text"', html)
            self.page(f"/admin/auth/user/{user.pk}/history/")

    def test_can_change_users_as_permitted(self):
        self.assertEqual(self.post(f"user/{self.alice.pk}/change/", **self.form(email="a@example.com")), 302)
        self.act("deactivate_users", self.alice, *self.others)

        self.alice.refresh_from_db()
        self.assertEqual((self.alice.email, self.alice.is_active), ("a@example.com", False))
        self.assertFalse(self.alice.auth_token_set.exists())
        self.assertEqual(self.events()[-1], ("Deactivate User", "bob", "alice"))
        self.act("delete_selected", self.alice)
        self.assertFalse(User.objects.filter(username="alice").exists())
        self.assertEqual(self.events()[-1], ("Delete Account", "bob", "alice"))

    def test_cannot_give_permissions(self):
        more = {
            "is_staff": "on",
            "is_superuser": "on",
            "groups": [self.group.pk],
            "user_permissions": [Permission.objects.first().pk],
        }
        for user in (self.alice, self.bob):
            with self.subTest(user):
                before = self.state(user)
                self.assertEqual(self.post(f"user/{user.pk}/change/", **self.form(**more)), 302)
                self.assertEqual(self.state(user), before)
        new = {"username": "erin", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
        self.assertEqual(self.post("user/add/", **new, **more), 302)
        self.assertEqual(self.state(User.objects.get(username="erin"))[0][0]["is_superuser"], False)

    def test_cannot_change_groups(self):
        permissions = [Permission.objects.first().pk]
        for path, form in {
            "group/add/": {"name": "more", "permissions": permissions},
            f"group/{self.group.pk}/change/": {"name": "helpers", "permissions": permissions},
            f"group/{self.group.pk}/delete/": {"post": "yes"},
        }.items():
            with self.subTest(path):
                self.assertEqual(self.post(path, **form), 403)
        self.post("group/", action="delete_selected", _selected_action=[self.group.pk], post="yes")
        self.assertEqual(list(Group.objects.all()), [self.group])
        self.assertFalse(self.group.permissions.exists())

    def test_superusers_can_do_all_of_it(self):
        self.admin = self.log_in_to_admin("operator")
        more = {"is_staff": "on", "is_superuser": "on", "groups": [self.group.pk]}

        self.assertEqual(self.post(f"user/{self.carol.pk}/change/", **self.form(**more)), 302)
        self.assertEqual(self.post(f"group/{self.group.pk}/change/", name="others"), 302)
        self.act("deactivate_users", self.bob, self.carol)

        self.carol.refresh_from_db()
        self.assertEqual((self.carol.is_superuser, self.carol.is_active), (True, False))
        self.assertEqual(self.carol.groups.get().name, "others")


class TokenTests(AdminTestCase):
    def test_the_page_of_a_user_links_to_their_tokens(self):
        token, _ = issue_token(self.alice)
        issue_token(self.bob)

        links = self.links(f"/admin/auth/user/{self.alice.pk}/change/")

        self.assertEqual(self.list_rows(links["Tokens"]), [token])

    def test_lists_owners_and_expiry_newest_first(self):
        token, _ = issue_token(self.alice)
        newer = [issue_token(self.bob)[0] for _ in range(4)]

        self.assertEqual(self.list_rows("/admin/knox/authtoken/"), [*newer[::-1], token])
        html = self.page("/admin/knox/authtoken/")
        self.assertIn("alice", html)
        for time in (token.created, token.expiry):
            self.assertIn(f"{time:%Y-%m-%d %H:%M:%S} UTC", html)
        self.assertNotIn('type="checkbox"', html)

    def test_searches_by_whole_name(self):
        token, _ = issue_token(self.alice)

        self.assertEqual(self.list_rows("/admin/knox/authtoken/?q=Alice"), [token])
        self.assertEqual(self.list_rows("/admin/knox/authtoken/?q=ali"), [])

    def test_cannot_create_change_or_delete_a_token(self):
        token, _ = issue_token(self.alice)

        self.assertEqual(self.admin.get("/admin/knox/authtoken/add/").status_code, 403)
        for page in ("change", "delete"):
            self.assertEqual(self.admin.post(f"/admin/knox/authtoken/{token.pk}/{page}/", {"post": "yes"}).status_code, 403)
        self.assertTrue(AuthToken.objects.exists())

    def test_number_of_queries_does_not_grow_with_rows(self):
        for owners in ((self.alice,), (self.alice, self.bob, self.carol)):
            for owner in owners:
                issue_token(owner)
            for query in ("", "?q=alice"):
                with self.subTest(query, more=owners), self.assertNumQueries(4):  # session, operator, count, rows
                    self.page(f"/admin/knox/authtoken/{query}")
