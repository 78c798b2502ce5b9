"""The OpenAPI schema, from which clients are generated."""

import itertools
import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

from config.testing.cases import ApiTestCase


def nodes(value: Any, path: str = "") -> Iterator[tuple[str, dict]]:
    """Yield each JSON object in the value, with its path."""
    if isinstance(value, dict):
        yield path, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from nodes(child, f"{path}/{key}")


class SchemaTests(ApiTestCase):
    def setUp(self):
        self.schema = self.client.get("/api/schema").json()
        self.components = self.schema["components"]["schemas"]
        self.operations = {
            operation["operationId"]: operation
            for methods in self.schema["paths"].values()
            for operation in methods.values()
        }

    def test_describes_every_operation_parameter_and_header(self):
        self.assertIn("send_message", self.operations)
        for name, operation in self.operations.items():
            with self.subTest(operation=name):
                self.assertTrue(operation["summary"])
                self.assertTrue(operation["description"])
                for parameter in operation.get("parameters", []):
                    self.assertTrue(parameter.get("description"), parameter["name"])
                for response in operation["responses"].values():
                    for header, value in response["headers"].items():
                        self.assertTrue(value.get("description"), header)

    def test_describes_the_errors_of_bodies_that_no_operation_reads(self):
        client = self.as_user(self.alice)
        bodies = ((415, b"x", {"content-encoding": "gzip"}), (413, b"x" * (2**20 + 1), {}))
        for (path, methods), (status, body, headers) in itertools.product(self.schema["paths"].items(), bodies):
            for method, operation in methods.items():
                with self.subTest(method=method, path=path, status=status):
                    response = client.generic(method.upper(), re.sub("{.*?}", "1", path), body, headers=headers)

                    self.assertEqual(response.status_code, status)
                    self.assertIn(str(status), operation["responses"])

    def test_describes_every_field(self):
        fields = {
            f"{path}/{name}": field
            for path, node in nodes(self.schema)
            if node.get("type") == "object"
            for name, field in node.get("properties", {}).items()
        }

        self.assertIn("/components/schemas/Message/read", fields)
        self.assertEqual([path for path, field in fields.items() if not field.get("description")], [])

    def test_ids_counts_and_cursors_have_64_bits(self):
        integers = {
            path: node for path, node in nodes(self.schema) if node.get("type") == "integer" and "/headers/" not in path
        }

        self.assertIn("/components/schemas/Message/properties/id", integers)
        self.assertEqual([path for path, node in integers.items() if node.get("format") != "int64"], [])

    def test_request_bodies_are_only_json(self):
        bodies = {
            name: operation["requestBody"] for name, operation in self.operations.items() if "requestBody" in operation
        }

        self.assertIn("send_message", bodies)
        self.assertEqual([name for name, body in bodies.items() if list(body["content"]) != ["application/json"]], [])

    def test_email_is_a_plain_string(self):
        email = self.components["RegisterRequest"]["properties"]["email"]

        self.assertEqual(email, {"type": "string", "maxLength": 254, "description": ANY})
