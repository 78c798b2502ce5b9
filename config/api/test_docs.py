"""The docs page, over HTTP and in a browser."""

import json
import os
import re
import shutil
import tempfile
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders

from config.testing.cases import ApiTestCase, ConcurrentTestCase
from config.testing.service import run_service

try:
    from selenium import webdriver
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.chrome.service import Service as Driver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.remote.webelement import WebElement
    from selenium.webdriver.support.wait import WebDriverWait
except ImportError:  # not in requirements.txt: without it, `manage.py test` runs the other tests
    webdriver = None

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",  # required to run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCREENSHOT = os.environ.get("DOCS_PICTURE")  # the file for a screenshot of the page; set by `make screenshot`


class DocsTests(ApiTestCase):
    def test_returns_a_page_that_loads_only_from_the_service(self):
        response = self.client.get("/api/docs", headers={"authorization": "Token bad"})

        self.assertEqual(response.status_code, 200)
        self.assertEqual(response["Content-Type"], "text/html; charset=utf-8")
        self.assertEqual(response["Cache-Control"], "no-store")
        self.assertEqual(
            response["Content-Security-Policy"],
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )

    def test_contains_no_url_of_another_host(self):
        page = self.client.get("/api/docs").text
        for file in ("docs/page.js", "docs/page.css"):
            page += Path(finders.find(file)).read_text()

        self.assertIn("SwaggerUIBundle", page)
        self.assertNotRegex(page, "https?://|[\"'(]//")

    def test_loads_only_files_that_exist(self):
        page = self.client.get("/api/docs").text
        files = re.findall('(?:src|href)="(/static/[^"]+)"', page)

        self.assertEqual(len(files), 5)
        for file in files:
            with self.subTest(file):
                self.assertEqual(self.client.get(file).status_code, 200)

    def test_errors_are_json(self):
        unknown = self.client.get("/api/docs?page=1")
        wrong_method = self.client.post("/api/docs")

        self.assertEqual((unknown.status_code, unknown.json()), (400, {"page": ["Unknown parameter."]}))
        self.assertEqual((wrong_method.status_code, wrong_method.json()), (405, {"detail": 'Method "POST" not allowed.'}))


class PostmanTests(ApiTestCase):
    """The collection that `make postman` writes."""

    FILE = Path(settings.BASE_DIR, "docs", "postman_collection.json")

    def test_has_every_operation_by_tag_with_its_parameters_and_example_responses(self):
        paths = self.client.get("/api/schema").json()["paths"]
        operations = {
            (operation["tags"][0], operation["summary"]): {
                (parameter["name"], parameter.get("description", ""))
                for parameter in operation.get("parameters", [])
                if parameter["in"] != "path"
            }
            for methods in paths.values()
            for operation in methods.values()
        }

        requests = {
            (folder["name"], item["name"]): (item["request"], item["response"])
            for folder in json.loads(self.FILE.read_text())["item"]
            for item in folder["item"]
        }

        for key in {*operations, *requests}:
            with self.subTest(key):
                request, responses = requests[key]
                parameters = (*request["url"]["query"], *request["header"])
                described = {(each["key"], each["description"]) for each in parameters if "description" in each}
                self.assertEqual(described, operations[key])
                self.assertRegex(" ".join(str(response["code"]) for response in responses), "^2.. [45]..$")


@contextmanager
def run_browser() -> Iterator["webdriver.Chrome"]:
    """Start Chromium with an empty profile and the log of its console, and quit it at the end of the block."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options, Driver(CHROMEDRIVER))  # without the path, selenium would download a driver
        try:
            yield browser
        finally:
            browser.quit()


@unittest.skipUnless(
    webdriver and CHROMIUM and CHROMEDRIVER, "chromium, chromedriver or selenium (requirements-dev.txt) is not installed"
)
class DocsInBrowserTests(ConcurrentTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.service = cls.enterClassContext(run_service(Path(folder)))
        cls.browser = cls.enterClassContext(run_browser())

    def setUp(self):
        super().setUp()
        self.resize(1280, 900)
        # The browser does not reload a URL that differs only after the #, which the links of the page change.
        self.browser.get("about:blank")
        self.browser.get(f"{self.service.url}/api/docs")
        self.wait_for(lambda: self.find(".opblock"))
        self.addCleanup(self.browser_errors)  # clears the log for the next test

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page in pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def find(self, selector: str) -> "WebElement":
        """Return the first element that the CSS selector matches."""
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """Return the result of `condition`, once it is true."""
        not_yet = (NoSuchElementException, StaleElementReferenceException)
        return WebDriverWait(self.browser, 30, ignored_exceptions=not_yet).until(lambda _: condition())

    def execute(self, operation: str, status: int, body: Any = None) -> Any:
        """Execute the operation on the page, and return the body of its response, which must have this status."""
        block = f".opblock[id$='-{operation}']"
        if "is-open" not in self.find(block).get_attribute("class"):
            self.find(f"{block} .opblock-summary-control").click()
        if body is not None:
            text = self.wait_for(lambda: self.find(f"{block} textarea"))
            text.send_keys(Keys.CONTROL, "a")
            text.send_keys(json.dumps(body, indent=2))
        self.wait_for(lambda: self.find(f"{block} .execute")).click()
        response = f"{block} .live-responses-table .response"
        self.wait_for(lambda: self.find(f"{response} .response-col_status").text.startswith(str(status)))
        if status == 204:
            return None
        return json.loads(self.find(f"{response} .response-col_description code").text)

    def authorization(self) -> str:
        """Return the text that tells which user is authorized. It is empty if nobody is."""
        return self.find("#reader").text

    def browser_errors(self) -> list[dict[str, Any]]:
        """Return the new lines of the browser's log: errors, and violations of the page's policy."""
        return self.browser.get_log("browser")

    def test_shows_every_operation(self):
        _, schema = self.service.request("GET", "/api/schema")
        expected = {(method.upper(), path) for path, operations in schema["paths"].items() for method in operations}

        displayed = {
            tuple(block.find_element(By.CSS_SELECTOR, f".opblock-summary-{part}").text for part in ("method", "path"))
            for block in self.browser.find_elements(By.CSS_SELECTOR, ".opblock")
        }

        self.assertEqual({(method, path.replace("\u200b", "")) for method, path in displayed}, expected)
        self.assertEqual(self.browser_errors(), [])

    def test_loads_nothing_from_other_hosts(self):
        script = "return performance.getEntriesByType('resource').map(resource => resource.name)"
        loaded = self.browser.execute_script(script)
        links = {link.get_attribute("href") for link in self.browser.find_elements(By.CSS_SELECTOR, "a[href]")}

        self.assertIn(f"{self.service.url}/api/schema", loaded)
        self.assertEqual([url for url in (*loaded, *links) if not url.startswith((self.service.url, "data:"))], [])

    def test_policy_blocks_inline_scripts(self):
        self.assertEqual(self.browser_errors(), [])

        self.browser.execute_script(
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = true'}))"
        )

        self.assertIsNone(self.browser.execute_script("return window.ran"))
        self.assertIn("Content Security Policy", self.browser_errors()[0]["message"])

    def test_registering_authorizes_the_page_until_logout(self):
        self.assertEqual(self.authorization(), "")

        self.browser.find_element(By.LINK_TEXT, "Register").click()
        session = self.execute("register", 201, {"username": "dora", "password": "a long secret"})
        self.assertEqual(session["user"], {"username": "dora", "email": ""})
        self.assertEqual(self.authorization(), "Authorized as dora")
        self.assertEqual(self.execute("show_account", 200), session["user"])

        self.browser.find_element(By.LINK_TEXT, "Send a message").click()
        message = self.execute("send_message", 201, {"receiver": "bob", "content": "Hello, bob!"})
        self.assertEqual((message["sender"], message["receiver"], message["content"]), ("dora", "bob", "Hello, bob!"))
        if SCREENSHOT:
            self.take_screenshot("send_message")

        self.execute("log_out", 204)
        self.assertEqual(self.authorization(), "")
        self.assertEqual(self.browser_errors(), [])
        self.execute("show_account", 401)

    def test_examples_of_the_first_steps_succeed_on_an_empty_database(self):
        User.objects.all().delete()

        session = self.execute("register", 201)
        message = self.execute("send_message", 201)

        self.assertEqual(session["user"], {"username": "alice", "email": "alice@example.com"})
        self.assertEqual(message["content"], "Hello 👋")
        self.assertEqual(self.browser_errors(), [])

    def test_shows_401_to_a_user_who_is_not_authorized(self):
        error = self.execute("show_account", 401)

        self.assertEqual(error, {"detail": "Authentication credentials were not provided."})
        self.assertEqual(self.authorization(), "")
        [failed_request] = self.browser_errors()  # Chromium reports each response with such a status
        self.assertIn("401 (Unauthorized)", failed_request["message"])

    def test_logging_in_authorizes_the_page_until_the_token_is_revoked(self):
        session = self.execute("log_in", 200, {"username": "alice", "password": "a long secret"})
        self.assertEqual(self.authorization(), "Authorized as alice")

        self.service.request("POST", "/api/auth/logoutall", token=session["token"])
        self.execute("show_account", 401)

        self.assertEqual(self.authorization(), "")

    def test_is_not_wider_than_a_phone(self):
        self.resize(390, 844)

        self.execute("log_in", 200, {"username": "alice", "password": "a long secret"})
        self.execute("list_messages", 200)

        self.assertEqual(self.browser.execute_script("return document.documentElement.scrollWidth"), 390)

    def take_screenshot(self, operation: str) -> None:
        """Save a screenshot of the page at the request body of the operation."""
        self.resize(1280, 1020)
        body = self.find(f".opblock[id$='-{operation}'] .opblock-section-request-body")
        self.browser.execute_script("arguments[0].scrollIntoView()", body)
        self.browser.save_screenshot(SCREENSHOT)
