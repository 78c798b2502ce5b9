"""Deleting an account, by its user and by operators."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from io import StringIO
from unittest.mock import patch

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Group, Permission, User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone

from accounts.authentication import AuthToken
from accounts.models import is_deleted
from blocking.models import Block
from config.environment import Limit
from config.testing.cases import PASSWORD, AdminTestCase, ApiTestCase, ConcurrentTestCase, make_user
from messageservice.actions import erase_account
from messageservice.models import Message
from messageservice.testing import EMPTY_PAGE, MessageAssertions, make_message, wait_until_lock_is_awaited

PATH = "/api/auth/user/delete"
RIGHT = {"current_password": PASSWORD}
WRONG = {"current_password": ["This is not your current password."]}
DELETED = "This account was deleted."
DEACTIVATED = {"receiver": ["This user's account is deactivated."]}
USED_BEFORE = {"detail": "This Idempotency-Key was already used for another message. Use a new key."}
NAME = r"^deleted-[0-9a-f]{12}$"


class DeletedAssertions(MessageAssertions):
    def assert_deleted(self, user: User, username: str) -> str:
        """Assert that only messages are left of the account, its name is free and counters agree. Returns its new name."""
        left = User.objects.get(pk=user.pk)
        self.assertRegex(left.username, NAME)
        self.assertFalse(left.is_active or left.is_staff or left.is_superuser or left.has_usable_password())
        self.assertEqual((left.email, left.first_name, left.last_name, left.last_login), ("", "", "", None))
        self.assertEqual((left.groups.count(), left.user_permissions.count()), (0, 0))
        self.assertFalse(AuthToken.objects.filter(user=user).exists())
        self.assertFalse(Block.objects.involving(user).exists())
        self.assertFalse(User.objects.filter(username__any_case=username).exists())
        self.assert_counters_agree()
        call_command("check_mailboxes", stdout=StringIO())
        return left.username


class DeleteAccountTests(DeletedAssertions, ApiTestCase):
    def setUp(self):
        super().setUp()
        self.client = self.as_user(self.alice)

    def test_deletes_everything_but_messages(self):
        User.objects.filter(pk=self.alice.pk).update(
            email="a@example.org", first_name="A", last_name="B", is_staff=True, is_superuser=True, last_login=timezone.now()
        )
        self.alice.groups.add(Group.objects.create(name="support"))
        self.alice.user_permissions.add(Permission.objects.first())
        for pair in ((self.alice, self.bob), (self.bob, self.alice), (self.alice, self.alice)):
            make_message(*pair)
        Block.objects.create(blocker=self.alice, blocked=self.carol)
        Block.objects.create(blocker=self.carol, blocked=self.alice)
        Block.objects.create(blocker=self.carol, blocked=self.bob)
        clients, messages = [self.client, self.as_user(self.alice)], list(Message.objects.order_by("pk").values())
        before = len(self.events())

        response = self.client.post(PATH, RIGHT)

        self.assertEqual((response.status_code, response.content), (204, b""))
        self.assertEqual([client.get("/api/auth/user").status_code for client in clients], [401, 401])
        name = self.assert_deleted(self.alice, "alice")
        self.assertEqual(list(Message.objects.order_by("pk").values()), messages)
        bob = self.as_user(self.bob)
        rows = bob.get("/api/message").json()["results"]
        self.assertEqual([(row["sender"], row["receiver"]) for row in rows], [("bob", name), (name, "bob")])
        self.assertEqual(bob.get("/api/conversation").json()["results"][0]["user"], name)
        self.assertEqual(self.events()[before:], [("Delete Account", "alice", "-")])
        self.assertEqual(list(Block.objects.values_list("blocker", "blocked")), [(self.carol.pk, self.bob.pk)])

    def test_frees_the_name_for_a_new_account(self):
        make_message(self.bob, self.alice)
        self.client.post(PATH, RIGHT)

        response = self.client.post("/api/auth/register", {"username": "ALICE", "password": PASSWORD})

        self.assertEqual(response.status_code, 201)
        new = self.as_user(User.objects.get(username="ALICE"))
        self.assertEqual(new.get("/api/message").json(), EMPTY_PAGE)

    def test_rejects_a_wrong_password_and_changes_nothing(self):
        for body, error in (
            ({"current_password": "wrong"}, WRONG),
            ({}, {"current_password": ["This field is required."]}),
            ({"current_password": ""}, {"current_password": ["This field may not be blank."]}),
            ({"current_password": ["x"]}, {"current_password": ["Not a valid string."]}),
        ):
            with self.subTest(body=body):
                response = self.client.post(PATH, body, format="json")

                self.assertEqual((response.status_code, response.json()), (400, error))
        self.assertEqual(self.client.get("/api/auth/user").json()["username"], "alice")
        self.assertEqual(self.events(), [])

    @override_settings(LIMIT_PASSWORD=Limit(2, 60))
    def test_counts_wrong_passwords_together_with_changes_of_password(self):
        self.client.post(PATH, {"current_password": "wrong"})
        self.client.post("/api/auth/password", {"current_password": "wrong", "new_password": "another long secret"})

        response = self.client.post(PATH, RIGHT)

        self.assertEqual(response.status_code, 429)
        self.assertIn("Retry-After", response)
        self.assertTrue(User.objects.filter(username="alice", is_active=True).exists())

    def test_rejects_a_user_whose_row_is_deleted_during_the_request(self):
        def delete_then_accept(user, password):
            User.objects.filter(pk=user.pk).delete()
            return True

        with patch("messageservice.actions.verify_password", delete_then_accept):
            response = self.client.post(PATH, RIGHT)

        self.assertEqual((response.status_code, response.json()), (400, WRONG))
        connection.check_constraints()

    def test_rejects_without_a_token_and_other_methods(self):
        self.assertEqual(self.client.get(PATH).status_code, 405)
        self.assertEqual(self.client.delete(PATH).status_code, 405)
        self.assertEqual(self.client_class().post(PATH, RIGHT).status_code, 401)

    def test_number_of_queries_does_not_grow_with_messages(self):
        """No message changes, so the time does not grow with their number."""
        for _ in range(20):
            make_message(self.alice, self.bob)

        with self.assertNumQueries(11) as queries:
            self.client.post(PATH, RIGHT)

        self.assertFalse([query for query in queries if "messageservice_message" in query["sql"]])


class DeletedAccountTests(DeletedAssertions, ApiTestCase):
    """What is still possible with a deleted account, and what is not."""

    def setUp(self):
        super().setUp()
        self.bobs = self.as_user(self.bob)
        self.first = self.send("alice")
        self.as_user(self.alice).post(PATH, RIGHT)
        self.name = User.objects.get(pk=self.alice.pk).username

    def send(self, receiver: str, content: str = "hi", key: str = "a-key"):
        body = {"receiver": receiver, "content": content}
        return self.bobs.post("/api/message", body, headers={"idempotency-key": key})

    def test_receives_no_message_and_no_block(self):
        for name in (self.name, self.name.upper()):
            self.assertEqual(self.send(name, key="new").json(), DEACTIVATED)
            response = self.bobs.post("/api/block", {"blocked": name})
            self.assertEqual((response.status_code, response.json()), (400, {"blocked": [DELETED]}))
        self.assertEqual((Message.objects.count(), Block.objects.count()), (1, 0))

    def test_can_be_used_to_filter_and_mark_as_read(self):
        for path in (f"message?user={self.name}", f"message/sent?receiver={self.name.upper()}"):
            self.assertEqual(
                [row["id"] for row in self.bobs.get(f"/api/{path}").json()["results"]], [self.first.json()["id"]]
            )
        response = self.bobs.post(f"/api/conversation/{self.name}/read", {"up_to": self.first.json()["id"]})
        self.assertEqual((response.status_code, response.json()), (200, {"user": self.name, "unread": 0}))

    def test_cannot_log_in(self):
        for name in ("alice", self.name):
            response = self.client.post("/api/auth/login", {"username": name, "password": PASSWORD})
            self.assertEqual(response.json(), {"non_field_errors": ["Incorrect credentials"]})

    def test_a_merely_deactivated_user_can_be_blocked(self):
        for number, user in enumerate((self.carol, make_user("deleted-long-ago"))):
            User.objects.filter(pk=user.pk).update(is_active=False)

            response = self.bobs.post("/api/block", {"blocked": user.username})

            self.assertEqual(response.status_code, 201)
            self.assertEqual(Block.objects.count(), number + 1)

    def test_a_user_who_had_such_a_name_before_it_was_reserved_is_not_deleted(self):
        old = make_user("deleted-0123456789ab")

        self.assertEqual(self.send(old.username, key="new").status_code, 201)
        self.assertEqual(self.bobs.post("/api/block", {"blocked": old.username}).status_code, 201)
        self.assertEqual(self.as_user(old).post(PATH, RIGHT).status_code, 204)

    def test_a_retry_under_the_old_name_never_reaches_its_next_owner(self):
        self.assertEqual((self.send("alice").status_code, self.send("alice").json()), (422, USED_BEFORE))
        new = make_user("Alice")
        self.assertEqual(self.send("alice").status_code, 422)
        self.assertEqual(self.as_user(new).get("/api/message").json(), EMPTY_PAGE)
        self.assertEqual(Message.objects.count(), 1)

    def test_a_retry_that_names_the_deleted_account_is_replayed(self):
        for name in (self.name, self.name.upper()):
            response = self.send(name)
            self.assertEqual((response.status_code, response["Idempotency-Replayed"]), (201, "true"))
            self.assertEqual(response.json(), {**self.first.json(), "receiver": self.name})
            self.assertEqual(self.send(name, content="other").status_code, 422)

    def test_an_unknown_receiver_is_a_field_error_if_the_key_is_new(self):
        for key in ("new", "new"):
            response = self.send("nobody", key=key)
            self.assertEqual((response.status_code, response.json()), (400, {"receiver": ["There is no such user."]}))

    def test_another_user_can_use_the_same_keys(self):
        response = self.as_user(self.carol).post(
            "/api/message", {"receiver": "alice", "content": "hi"}, headers={"idempotency-key": "a-key"}
        )
        self.assertEqual((response.status_code, response.json()), (400, {"receiver": ["There is no such user."]}))

    def test_no_command_changes_it(self):
        before = User.objects.filter(pk=self.alice.pk).values().get()
        for command in (
            ("erase", self.name),
            ("rename_user", self.name, "alice"),
            ("changepassword", self.name),
        ):
            with (
                self.subTest(command),
                patch("getpass.getpass", return_value="quite another secret"),
                self.assertRaises(CommandError),
            ):
                call_command(*command, stdout=StringIO(), stderr=StringIO())
        self.assertEqual(User.objects.filter(pk=self.alice.pk).values().get(), before)


class EraseCommandTests(DeletedAssertions, ApiTestCase):
    def test_deletes_the_account_in_any_letter_case(self):
        make_message(self.alice, self.bob)

        call_command("erase", "ALICE", stdout=StringIO())

        self.assert_deleted(self.alice, "alice")
        self.assertEqual(self.events()[-1][::2], ("Delete Account", "alice"))

    def test_rejects_an_unknown_user(self):
        with self.assertRaisesMessage(CommandError, "There is no user nobody."):
            call_command("erase", "nobody")


class ChangePasswordTests(DeletedAssertions, ApiTestCase):
    def test_does_not_restore_an_account_deleted_while_it_asks(self):
        def erase(prompt: str) -> str:
            erase_account(self.alice)
            return "quite another secret"

        with patch("getpass.getpass", erase), self.assertRaisesMessage(CommandError, DELETED):
            call_command("changepassword", "alice", stdout=StringIO())

        self.assert_deleted(self.alice, "alice")


class EraseInAdminTests(DeletedAssertions, AdminTestCase):
    def erase(self, *users: User, client=None):
        form = {"action": "erase_users", ACTION_CHECKBOX_NAME: [user.pk for user in users]}
        return (client or self.admin).post("/admin/auth/user/", form, follow=True)

    def staff(self, *permissions: str):
        User.objects.filter(pk=self.carol.pk).update(is_staff=True)
        self.carol.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        return self.log_in_to_admin("carol")

    def test_erases_selected_users_but_never_the_operator(self):
        make_message(self.alice, self.bob)

        response = self.erase(self.alice, self.operator)

        self.assertContains(response, "Erased: alice.")
        self.assert_deleted(self.alice, "alice")
        self.assertEqual(self.events()[-1], ("Delete Account", "operator", "alice"))
        self.assertTrue(User.objects.get(pk=self.operator.pk).is_superuser)

    def test_ends_sessions_of_the_admin(self):
        staff = self.staff("view_user")
        self.assertEqual(staff.get("/admin/").status_code, 200)

        self.erase(self.carol)

        self.assertEqual(staff.get("/admin/").status_code, 302)
        self.assert_deleted(self.carol, "carol")

    def test_does_not_erase_an_account_twice(self):
        self.erase(self.alice)
        before = list(User.objects.order_by("pk").values())

        self.assertContains(self.erase(self.alice), "Erased: nobody.")
        self.assertEqual(list(User.objects.order_by("pk").values()), before)

    def test_needs_the_permission_to_delete(self):
        self.erase(self.alice, client=self.staff("view_user", "change_user"))

        self.assertTrue(User.objects.filter(username="alice", is_active=True).exists())

    def test_staff_cannot_erase_other_staff(self):
        staff = self.staff("view_user", "delete_user")
        User.objects.filter(pk=self.bob.pk).update(is_staff=True)

        self.erase(self.alice, self.bob, self.operator, client=staff)

        self.assertRegex(User.objects.get(pk=self.alice.pk).username, NAME)
        self.assertEqual(User.objects.filter(username__in=("bob", "operator"), is_active=True).count(), 2)

    def test_a_deleted_account_can_be_neither_activated_nor_given_a_password(self):
        page = f"/admin/auth/user/{self.alice.pk}"
        erase_account(self.alice)
        before = User.objects.filter(pk=self.alice.pk).values().get()

        responses = [
            self.admin.post(f"{page}/change/", self.change_form(is_active="on")),
            self.admin.post(f"{page}/password/", {"password1": "quite another secret", "password2": "quite another secret"}),
        ]

        self.assertEqual([response.status_code for response in responses], [403, 403])
        self.assertNotIn('name="_save"', self.page(f"{page}/change/"))
        self.assertEqual(User.objects.filter(pk=self.alice.pk).values().get(), before)

    def test_a_form_sent_after_a_deletion_changes_nothing(self):
        page = f"/admin/auth/user/{self.alice.pk}"
        passwords = {"password1": "quite another secret", "password2": "quite another secret"}
        for form, path, body in (
            ("ChangeUserForm", "change", self.change_form(is_active="on", email="a@example.org")),
            ("SetPasswordForm", "password", {**passwords, "usable_password": "true"}),
        ):
            with self.subTest(path), transaction.atomic():
                with self.overtaken(f"accounts.admin.{form}"):
                    response = self.admin.post(f"{page}/{path}/", body)

                left = User.objects.get(pk=self.alice.pk)
                self.assertEqual((response.status_code, left.email), (403, ""))
                self.assertFalse(left.check_password(passwords["password1"]))
                transaction.set_rollback(True)

    def test_an_operators_password_form_sent_after_a_deletion_changes_nothing(self):
        self.alice = self.operator
        new = {"password1": "quite another secret", "password2": "quite another secret"}
        with self.overtaken("accounts.admin_site.OperatorPasswordForm"):
            body = {"old_password": PASSWORD, **new, "new_password1": new["password1"], "new_password2": new["password1"]}
            response = self.admin.post("/admin/password_change/", body)

        self.assertEqual(response.status_code, 403)
        self.assert_deleted(self.operator, "operator")

    def change_form(self, **fields: str) -> dict[str, str]:
        return {"email": "", **fields}

    @contextmanager
    def overtaken(self, form: str):
        """Send the form; the account is deleted just before the form is saved."""
        original = f"{form}.is_valid"
        module, _, name = form.rpartition(".")
        form_class = getattr(__import__(module, fromlist=[name]), name)
        is_valid = form_class.is_valid

        def erase_then(form):
            valid = is_valid(form)
            self.assertTrue(valid, form.errors)
            erase_account(User.objects.get(pk=self.alice.pk))
            return valid

        with patch(original, erase_then):
            yield


class ParallelDeletingTests(DeletedAssertions, ConcurrentTestCase):
    """In each test but the last, one of two transactions waits for the other; in the last, all start together."""

    def overtaken(self, call):
        """Return the result of `call`, which waits for a deletion of alice that is not committed yet."""
        with ThreadPoolExecutor(1) as pool:
            with transaction.atomic():
                self.assertTrue(erase_account(User.objects.get(pk=self.alice.pk)))
                waiting = pool.submit(self.closing, call)
                wait_until_lock_is_awaited()
                self.assertFalse(waiting.done())
            return waiting.result()

    @staticmethod
    def closing(call):
        try:
            return call()
        finally:
            connection.close()

    def test_rejects_a_send_to_the_user(self):
        send = partial(self.as_user(self.bob).post, "/api/message", {"receiver": "alice", "content": "hi"})

        response = self.overtaken(send)

        self.assertEqual((response.status_code, response.json()), (400, DEACTIVATED))
        self.assertEqual(Message.objects.count(), 0)
        self.assert_deleted(self.alice, "alice")

    def test_rejects_a_send_by_the_user(self):
        for receiver in ("bob", "alice"):
            send = partial(self.as_user(self.alice).post, "/api/message", {"receiver": receiver, "content": "hi"})

            response = self.overtaken(send)

            self.assertEqual(response.status_code, 400)
            self.assertEqual(Message.objects.count(), 0)
            self.assert_deleted(self.alice, "alice")
            self.alice = make_user("alice")

    def test_rejects_a_block_of_and_by_the_user(self):
        for blocker, blocked, error in (
            ("bob", "alice", {"blocked": [DELETED]}),
            ("alice", "bob", {"non_field_errors": ["Your account was deleted."]}),
        ):
            with self.subTest(blocker):
                client = self.as_user(User.objects.get(username=blocker))

                response = self.overtaken(partial(client.post, "/api/block", {"blocked": blocked}))

                self.assertEqual((response.status_code, response.json()), (400, error))
                self.assert_deleted(self.alice, "alice")
                self.alice = make_user("alice")

    def test_rejects_a_log_in(self):
        log_in = partial(self.client.post, "/api/auth/login", {"username": "alice", "password": PASSWORD})

        response = self.overtaken(log_in)

        self.assertEqual(response.status_code, 400)
        self.assert_deleted(self.alice, "alice")

    def test_rejects_a_second_deletion(self):
        response = self.overtaken(partial(self.as_user(self.alice).post, PATH, RIGHT))

        self.assertEqual((response.status_code, response.json()), (400, WRONG))
        self.assertEqual(self.events(), [])

    def test_waits_for_a_send_without_locking_the_user(self):
        for names in (("alice", "bob"), ("bob", "alice")):
            sender, receiver = (User.objects.get(username=name) for name in names)
            client = self.as_user(self.alice)
            with ThreadPoolExecutor(1) as pool:
                with transaction.atomic():
                    message = make_message(sender, receiver)
                    deletion = pool.submit(self.closing, partial(client.post, PATH, RIGHT))
                    wait_until_lock_is_awaited()
                    User.objects.select_for_update(nowait=True).get(pk=self.alice.pk)
                self.assertEqual(deletion.result().status_code, 204)
            self.assertTrue(Message.objects.filter(pk=message.pk).exists())
            self.assert_deleted(self.alice, "alice")
            self.alice = make_user("alice")

    def test_parallel_requests_leave_nothing_half_done(self):
        for number in range(6):
            name = f"dave{number}"
            dave = make_user(name)
            client, bob, carol = self.as_user(dave), self.as_user(self.bob), self.as_user(self.carol)

            responses = self.in_parallel(
                partial(client.post, PATH, RIGHT),
                partial(self.as_user(dave).post, PATH, RIGHT),
                partial(bob.post, "/api/message", {"receiver": name, "content": "hi"}),
                partial(self.as_user(dave).post, "/api/message", {"receiver": "bob", "content": "hi"}),
                partial(carol.post, "/api/block", {"blocked": name}),
                partial(self.as_user(dave).post, "/api/block", {"blocked": "carol"}),
                partial(self.client_class().post, "/api/auth/login", {"username": name, "password": PASSWORD}),
            )

            statuses = [response.status_code for response in responses]
            self.assertEqual(statuses[:2].count(204), 1, statuses)
            self.assertLessEqual(set(statuses), {200, 201, 204, 400, 401})
            self.assertTrue(is_deleted(User.objects.get(pk=dave.pk)))
            self.assert_deleted(dave, name)
