from unittest.mock import patch

from django.contrib.auth.models import Permission, User

from blocking.actions import unblock_user
from blocking.models import Block
from config.testing.cases import AdminTestCase

LIST = "/admin/blocking/block/"


class BlockTests(AdminTestCase):
    def setUp(self):
        super().setUp()
        self.block = Block.objects.create(blocker=self.alice, blocked=self.bob)

    def test_lists_newest_first(self):
        newer = Block.objects.create(blocker=self.carol, blocked=self.alice)

        self.assertEqual(self.list_rows(LIST), [newer, self.block])
        self.assertIn("bob", self.page(LIST))

    def test_searches_by_whole_name_of_blocker_or_blocked(self):
        self.assertEqual(self.list_rows(f"{LIST}?q=Alice"), [self.block])
        self.assertEqual(self.list_rows(f"{LIST}?q=bob"), [self.block])
        self.assertEqual(self.list_rows(f"{LIST}?q=bo"), [])

    def test_the_page_of_a_user_links_to_blocks_by_and_of_them(self):
        by_carol = Block.objects.create(blocker=self.carol, blocked=self.alice)
        Block.objects.create(blocker=self.carol, blocked=self.bob)

        links = self.links(f"/admin/auth/user/{self.alice.pk}/change/")

        self.assertEqual(self.list_rows(links["Blocks"]), [by_carol, self.block])

    def test_shows_times_in_utc(self):
        for path in (LIST, f"{LIST}{self.block.pk}/change/"):
            with self.subTest(path):
                self.assertIn(f"{self.block.created:%Y-%m-%d %H:%M:%S} UTC", self.page(path))

    def test_deletes_a_block(self):
        bob = self.as_user(self.bob)

        self.assertIn("alice blocks bob", self.page(f"{LIST}{self.block.pk}/delete/"))
        self.admin.post(f"{LIST}{self.block.pk}/delete/", {"post": "yes"})

        self.assertEqual(bob.post("/api/message", {"receiver": "alice", "content": "hi"}).status_code, 201)
        self.assertIn(("Unblock User", "alice", "bob"), self.events())

    def test_deletes_several_blocks(self):
        other = Block.objects.create(blocker=self.carol, blocked=self.alice)

        self.admin.post(LIST, {"action": "delete_selected", "_selected_action": [self.block.pk, other.pk], "post": "yes"})

        self.assertFalse(Block.objects.exists())
        self.assertCountEqual(self.events()[1:], [("Unblock User", "alice", "bob"), ("Unblock User", "carol", "alice")])

    def test_deletes_the_other_blocks_if_the_blocker_has_just_deleted_a_block(self):
        newer = Block.objects.create(blocker=self.carol, blocked=self.alice)  # comes first

        def unblock(block):
            Block.objects.filter(pk=newer.pk).delete()
            unblock_user(block)

        with patch("blocking.admin.unblock_user", unblock):
            selected = [newer.pk, self.block.pk]
            response = self.admin.post(LIST, {"action": "delete_selected", "_selected_action": selected, "post": "yes"})

        self.assertEqual(response.status_code, 302)
        self.assertFalse(Block.objects.exists())
        self.assertEqual(self.events()[1:], [("Unblock User", "alice", "bob")])

    def test_staff_cannot_delete_blocks_of_other_staff(self):
        User.objects.filter(pk__in=[self.alice.pk, self.bob.pk]).update(is_staff=True)
        self.bob.user_permissions.set(Permission.objects.filter(content_type__app_label="blocking"))
        others = Block.objects.create(blocker=self.carol, blocked=self.bob)
        staff = self.log_in_to_admin("bob")

        delete_selected = {"action": "delete_selected", "_selected_action": [self.block.pk, others.pk], "post": "yes"}
        responses = [staff.post(f"{LIST}{self.block.pk}/delete/", {"post": "yes"}), staff.post(LIST, delete_selected)]

        self.assertEqual([response.status_code for response in responses], [403, 403])
        self.assertEqual(Block.objects.count(), 2)
        self.assertEqual(staff.post(f"{LIST}{others.pk}/delete/", {"post": "yes"}).status_code, 302)
        self.assertEqual(Block.objects.get(), self.block)

    def test_cannot_add_or_change_a_block(self):
        self.assertEqual(self.admin.get(f"{LIST}add/").status_code, 403)
        self.assertEqual(self.admin.post(f"{LIST}{self.block.pk}/change/", {}).status_code, 403)

    def test_number_of_queries_does_not_grow_with_rows(self):
        calls = {LIST: 4, f"{LIST}?q=alice": 5}  # session, operator, in a search the user; count, rows
        for more in ((), (self.alice, self.bob)):
            for blocked in more:
                Block.objects.create(blocker=self.carol, blocked=blocked)
            for path, queries in calls.items():
                with self.subTest(path, more=more), self.assertNumQueries(queries):
                    self.page(path)
