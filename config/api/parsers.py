"""Parsers for request bodies. Each returns a plain dictionary, so that a missing field is missing in all of them."""

import io
from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings
from django.utils.http import parse_header_parameters
from rest_framework import parsers
from rest_framework.exceptions import ParseError
from rest_framework.utils import json


def read_text(stream: io.BufferedIOBase) -> str:
    try:
        return stream.read().decode()
    except UnicodeDecodeError:
        raise ParseError("The body is not UTF-8.") from None


def parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ParseError("The body is nested too deeply.") from None
    except ValueError as error:
        raise ParseError(f"The body is not JSON: {error}.") from None


class JSONParser(parsers.JSONParser):
    def parse(self, stream, media_type=None, parser_context=None):
        return parse_json(read_text(stream))


class FormParser(parsers.FormParser):
    """Reads forms, and the JSON that `curl -d '{…}'` labels as a form."""

    def parse(self, stream, media_type=None, parser_context=None):
        text = read_text(stream)
        if text.lstrip().startswith("{"):
            return parse_json(text)
        limit = settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
        try:
            return dict(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=limit))
        except ValueError as error:
            raise ParseError(f"The form cannot be read: {error}.") from None


class MultiPartParser(parsers.MultiPartParser):
    def parse(self, stream, media_type=None, parser_context=None):
        text = read_text(stream)  # DRF's parser replaces bytes that are not UTF-8
        parsed = super().parse(io.BytesIO(text.encode()), media_type, {**parser_context, "encoding": "utf-8"})
        _, parameters = parse_header_parameters(media_type)
        if f"\n--{parameters['boundary']}--" not in f"\n{text}":  # DRF's parser accepts a part that was cut short
            raise ParseError("The form is incomplete.")
        return parsers.DataAndFiles(parsed.data.dict(), parsed.files.dict())
