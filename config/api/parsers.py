"""Reads bodies. All three parsers give a plain dictionary, so that a missing field is missing in each of them."""

import io
import json
from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings
from django.utils.http import parse_header_parameters
from rest_framework import parsers
from rest_framework.exceptions import ParseError


def read_text(stream: io.BufferedIOBase) -> str:
    try:
        return stream.read().decode()
    except UnicodeDecodeError:
        raise ParseError("The body is not UTF-8.") from None


def parse_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ParseError("The body is nested too deeply.") from None
    except ValueError as error:
        raise ParseError(f"The body is not JSON: {error}.") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


class JSONParser(parsers.JSONParser):
    def parse(self, stream, media_type=None, parser_context=None):
        return parse_json(read_text(stream))


class FormParser(parsers.FormParser):
    """Reads forms, and the JSON that `curl -d '{…}'` sends under a form's media type."""

    def parse(self, stream, media_type=None, parser_context=None):
        text = read_text(stream)
        if text.lstrip().startswith("{"):
            return parse_json(text)
        try:
            return dict(
                parse_qsl(
                    text,
                    keep_blank_values=True,
                    errors="strict",
                    max_num_fields=settings.DATA_UPLOAD_MAX_NUMBER_FIELDS,
                )
            )
        except UnicodeDecodeError:
            raise ParseError("The form is not UTF-8.") from None
        except ValueError:
            raise ParseError("Too many fields.") from None


class MultiPartParser(parsers.MultiPartParser):
    def parse(self, stream, media_type=None, parser_context=None):
        text = read_text(stream)  # the framework's parser would replace what is not UTF-8 in silence
        parsed = super().parse(io.BytesIO(text.encode()), media_type, {**parser_context, "encoding": "utf-8"})
        _, parameters = parse_header_parameters(media_type)
        if f"\n--{parameters['boundary']}--" not in f"\n{text}":  # the framework's parser takes half a part for a whole one
            raise ParseError("The form ends amidst a part.")
        return parsers.DataAndFiles(parsed.data.dict(), parsed.files.dict())
