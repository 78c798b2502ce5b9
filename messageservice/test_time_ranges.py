"""The parameters `since`, `until` and `date` of the three message lists. Their plans are in test_plans.py."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from config.testing.cases import ApiTestCase
from messageservice.models import Message
from messageservice.testing import EMPTY_PAGE, LISTS, MessageAssertions, make_message, time_json

MICROSECOND = timedelta(microseconds=1)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
PATH = "/api/message"


class TimeRangeTests(MessageAssertions, ApiTestCase):
    def setUp(self):
        super().setUp()
        self.client = self.as_user(self.alice)

    def fill(self, *times: datetime) -> None:
        """Create messages of alice to herself, which are on each of her lists."""
        for time in times:
            make_message(self.alice, self.alice, created=time)

    def times(self, query: str, path: str = PATH) -> list[str]:
        """Return the times on the list, oldest first; `query` is not escaped."""
        response = self.client.get(f"{path}?{query}")
        self.assertEqual(response.status_code, 200, response.content)
        page = response.json()
        self.assertEqual(page, {**EMPTY_PAGE, "count": len(page["results"]), "results": page["results"]})
        return sorted(row["created"] for row in page["results"])

    def test_since_is_inclusive_and_until_exclusive(self):
        # Without and with a fraction of a second, which the databases store and compare in different forms.
        for moment in (NOON, NOON + MICROSECOND, NOON - MICROSECOND, NOON + timedelta(seconds=0.5)):
            Message.objects.all().update(created=NOON - timedelta(days=9))
            self.fill(*(moment + steps * MICROSECOND for steps in (-1_000_000, -1, 0, 1, 1_000_000)))
            far, before, now, after, late = (time_json(moment + n * MICROSECOND) for n in (-(10**6), -1, 0, 1, 10**6))
            for path in LISTS:
                with self.subTest(moment=moment, path=path):
                    self.assertEqual(self.times(f"since={now}", path), [now, after, late])
                    self.assertEqual(self.times(f"until={now}&since={far}", path), [far, before])
                    self.assertEqual(self.times(f"since={now}&until={after}", path), [now])
                    self.assertEqual(self.times(f"since={before}&until={late}", path), [before, now, after])
                    self.assertEqual(self.times(f"since={after}&until={now}", path), [])
                    self.assertEqual(self.times(f"since={now}&until={now}", path), [])

    def test_accepts_every_format_of_an_instant(self):
        self.fill(NOON - MICROSECOND, NOON, NOON + MICROSECOND)
        noon, later = time_json(NOON), time_json(NOON + MICROSECOND)
        for text in (
            "2026-11-23T12:00:00Z",
            "2026-11-23T12:00:00.0Z",
            f"2026-11-23T12:00:00.{'0' * 5000}Z",
            "2026-11-23T12:00:00+00:00",
            "2026-11-23T12:00:00-00:00",
            "2026-11-23T15:00:00+03:00",
            "2026-11-23T15:00:00.000000+03:00",
            "2026-11-24T11:59:00+23:59",
            "2026-11-22T12:01:00-23:59",
            "2026-11-23T06:15:00-05:45",
        ):
            # A `+` that is escaped, one that is not, and the space that the URL of a next page may have.
            for written in {text, quote(text), text.replace("+", "%20")}:
                with self.subTest(written=written[:40]):
                    self.assertEqual(self.times(f"since={written}"), [noon, later])
                    self.assertEqual(self.times(f"until={written}&since={noon}"), [])

    def test_rounds_up_to_microseconds(self):
        self.fill(NOON - MICROSECOND, NOON, NOON + MICROSECOND)
        before, noon, later = (time_json(NOON + steps * MICROSECOND) for steps in (-1, 0, 1))
        for text, kept in {
            "2026-11-23T11:59:59.9999990Z": [before, noon, later],
            "2026-11-23T11:59:59.9999991Z": [noon, later],
            f"2026-11-23T11:59:59.999999{'0' * 4500}1Z": [noon, later],
            "2026-11-23T14:59:59.9999999+03:00": [noon, later],
            "2026-11-23T12:00:00.0000001Z": [later],
            "2026-11-23T12:00:00.00000100Z": [later],
            "2026-11-23T12:00:00.000001000001Z": [],
        }.items():
            with self.subTest(text=text[:40]):
                self.assertEqual(self.times(f"since={text}"), kept)
                self.assertEqual(self.times(f"until={text}"), [time for time in (before, noon, later) if time not in kept])

    def test_accepts_instants_at_and_beyond_the_limits_of_the_calendar(self):
        self.fill(FIRST, FIRST + MICROSECOND, NOON, LAST - MICROSECOND, LAST)
        rows = [time_json(time) for time in (FIRST, FIRST + MICROSECOND, NOON, LAST - MICROSECOND, LAST)]
        for text, older in {
            "0001-01-01T00:00:00+23:59": 0,
            "0001-01-01T00:00:00+14:00": 0,
            "0001-01-01T13:59:59.9999999+14:00": 0,
            "0001-01-01T00:00:00Z": 0,
            "0001-01-01T00:00:00.0000001Z": 1,
            "0001-01-01T00:00:00-12:00": 2,
            "9999-12-31T23:59:59+14:00": 3,
            "9999-12-31T23:59:59.999999Z": 4,
            "9999-12-31T23:59:59.9999999Z": 5,
            "9999-12-31T23:59:59-12:00": 5,
            "9999-12-31T23:59:59.9999999-23:59": 5,
        }.items():
            for path in LISTS:
                with self.subTest(text=text, path=path):
                    self.assertEqual(self.times(f"until={text}", path), rows[:older])
                    self.assertEqual(self.times(f"since={text}", path), rows[older:])
                    self.assertEqual(self.times(f"since={text}&until={text}", path), [])
                    self.assertEqual(self.client.get(f"{path}?after=0&until={text}").status_code, 200)
        self.assertEqual(self.times("since=0001-01-01T00:00:00%2B14:00&until=9999-12-31T23:59:59-12:00"), rows)

    def test_combine_with_date(self):
        midnight = datetime(2026, 11, 23, tzinfo=UTC)
        night = midnight + timedelta(days=1) - MICROSECOND
        self.fill(midnight - MICROSECOND, midnight, NOON, night, NOON + timedelta(days=1))
        shown = [row["created"] for row in self.client.get(PATH).json()["results"]][::-1]
        noon = "2026-11-23T12:00:00Z"
        for query, kept in {
            "date=2026-11-23": shown[1:4],
            "since=2026-11-23T00:00:00Z&until=2026-11-24T00:00:00Z": shown[1:4],
            f"date=2026-11-23&since={noon}": shown[2:4],
            f"date=2026-11-23&until={noon}": shown[1:2],
            f"date=2026-11-23&since={noon}&until=2026-11-23T12:00:00.000001Z": shown[2:3],
            "date=2026-11-23&since=2026-11-22T00:00:00Z&until=2026-11-25T00:00:00Z": shown[1:4],
            "date=2026-11-24&until=2026-11-24T00:00:00Z": [],
            "date=2026-11-22&since=2026-11-23T00:00:00Z": [],
            "date=0001-01-01&since=9999-12-31T23:59:59-12:00": [],
            "date=9999-12-31&until=0001-01-01T00:00:00%2B14:00": [],
        }.items():
            for path in LISTS:
                with self.subTest(query=query, path=path):
                    self.assertEqual(self.times(query, path), kept)

    def test_links_to_pages_keep_since_and_until(self):
        self.fill(*[NOON] * 3)
        for since in ("2026-11-23T15:00:00+03:00", "2026-11-23T15:00:00%2B03:00"):
            for paging in ("page=1", "after=0"):
                with self.subTest(since=since, paging=paging):
                    first = self.client.get(f"{PATH}?since={since}&until=2026-11-24T00:00:00Z&page_size=2&{paging}").json()
                    second = self.client.get(first["next"]).json()

                    self.assertEqual((len(first["results"]), len(second["results"]), second["next"]), (2, 1, None))
                    self.assertEqual(self.client.get(second["previous"]).json()["results"], first["results"])

    def test_an_empty_range_has_a_first_page(self):
        self.fill(NOON)
        query = "since=2026-11-24T00:00:00Z&until=2026-11-23T00:00:00Z"
        for path in LISTS:
            with self.subTest(path=path):
                self.assertEqual(self.client.get(f"{path}?{query}&page=1").json(), EMPTY_PAGE)
                self.assertEqual(self.client.get(f"{path}?{query}&page=2").status_code, 404)
                self.assertEqual(
                    self.client.get(f"{path}?{query}&before=9").json(), {"next": None, "previous": None, "results": []}
                )

    def test_reject_what_is_not_an_instant(self):
        self.fill(NOON)
        loose = """
            2026-11-23 2026-11-23T12:00Z 2026-11-23T12Z 2026-11-23T12:00:00 2026-11-23t12:00:00Z 2026-11-23T12:00:00z
            2026-11-23%2012:00:00Z 2026-11-23_12:00:00Z 20261123T120000Z 2026-W48-1T12:00:00Z 2026-327T12:00:00Z
            2026-11-23T12:00:00.Z 2026-11-23T12:00:00,5Z 2026-11-23T12:00:00.5 2026-11-23T12:00:00.-5Z
            2026-11-23T12:00:00.5_0Z
            2026-11-23T12:00:00+03 2026-11-23T12:00:00+0300 2026-11-23T12:00:00+3:00 2026-11-23T12:00:00+03:00:00
            2026-11-23T12:00:00++03:00 2026-11-23T12:00:00Z+03:00 2026-11-23T12:00:00UTC 2026-11-23T12:00:00%E2%88%9203:00
            2026-11-23T12:00:00ZZ 1795435200 now today Z T x null 11/23/2026 2026-11-23T1:00:00Z
        """
        impossible = """
            2026-02-29T00:00:00Z 2026-13-01T00:00:00Z 2026-00-01T00:00:00Z 2026-01-00T00:00:00Z 2026-11-31T00:00:00Z
            2026-11-23T24:00:00Z 2026-11-23T23:60:00Z 2026-11-23T23:59:61Z 2016-12-31T23:59:60Z 2016-12-31T23:59:60.5Z
            2026-11-23T12:00:00+24:00 2026-11-23T12:00:00+03:60 2026-11-23T12:00:00-99:99
            0000-01-01T00:00:00Z 0000-12-31T23:59:59-12:00 10000-01-01T00:00:00Z -2026-11-23T12:00:00Z +2026-11-23T12:00:00Z
        """
        padded = """
            %202026-11-23T12:00:00Z 2026-11-23T12:00:00Z%20 2026-11-23T12:00:00Z%0A 2026-11-23T12:00:00Z%00 %00 %ff
            2026-11-23T12:00:00%20Z %EF%BC%92026-11-23T12:00:00Z 2026-11-23T12:00:00.%D9%A1Z 2026-11-23T12:00:00%0903:00
        """
        for name in ("since", "until"):
            for value in f"{loose} {impossible} {padded}".split():
                with self.subTest(name=name, value=value):
                    self.assert_invalid(self.client.get(f"{PATH}?{name}={value}"), name)

    def test_are_rejected_if_empty_repeated_misspelt_or_on_other_lists(self):
        noon = "2026-11-23T12:00:00Z"
        for path in LISTS:
            for query, name in (
                ("since=", "since"),
                ("until=", "until"),
                (f"since={noon}&since={noon}", "since"),
                (f"until={noon}&until={noon}", "until"),
                (f"Since={noon}", "Since"),
                (f"from={noon}", "from"),
            ):
                with self.subTest(path=path, query=query):
                    self.assert_invalid(self.client.get(f"{path}?{query}"), name)
        for path in ("/api/conversation", "/api/block", "/api/auth/user"):
            with self.subTest(path=path):
                self.assert_invalid(self.client.get(f"{path}?since={noon}"), "since")
        self.assert_invalid(self.client.get(f"{PATH}?since=x&until=y&date=z&user=nobody"), "since", "until", "date", "user")

    def test_are_described_on_each_list(self):
        paths = self.client.get("/api/schema").json()["paths"]
        for path in LISTS:
            described = {parameter["name"]: parameter for parameter in paths[path]["get"]["parameters"]}
            for name, kind in (("since", "date-time"), ("until", "date-time"), ("date", "date")):
                with self.subTest(path=path, name=name):
                    self.assertEqual(described[name]["schema"], {"type": "string", "format": kind})
                    self.assertTrue(described[name]["description"])
