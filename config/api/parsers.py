"""Parsers for request bodies. Each returns a plain dictionary, so that a missing field is missing in all of them."""

import io
import re
from collections import Counter
from itertools import islice
from json import JSONDecodeError
from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings
from django.utils.http import parse_header_parameters
from rest_framework import parsers
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.utils import json

# Python's parser takes a quarter of a second for a megabyte full of values, and lets no other thread run. So the tokens are
# counted first: strings, which may lack their end, and the characters before further values.
MOST_TOKENS = 500
TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{,]', re.DOTALL)
NOT_UTF8 = "The body must be in UTF-8, without NUL characters."


def read_text(stream: io.BufferedIOBase) -> str:
    """Return the body without its byte order mark. Rejects NUL, which every text in UTF-16 or UTF-32 contains."""
    try:
        text = stream.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ParseError(NOT_UTF8) from None
    if "\0" in text:
        raise ParseError(NOT_UTF8)
    return text


def parse_json(text: str) -> Any:
    if next(islice(TOKEN.finditer(text), MOST_TOKENS, None), None):
        raise ParseError("The body has too many values.")
    try:
        return json.loads(text, object_pairs_hook=unique_fields)
    except JSONDecodeError as error:
        raise ParseError(f"The body is not JSON: {error}.") from None
    except ValueError:  # NaN, Infinity, or thousands of digits
        raise ParseError("The body has a number that is out of range.") from None


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields as a dictionary. Raises ValidationError for the fields that are given more than once."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(name.encode(errors="replace").decode() for name, _ in pairs)  # no response can hold lone surrogates
        raise ValidationError({name: ["Give this field only once."] for name, count in counts.items() if count > 1})
    return fields


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
            return unique_fields(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=limit))
        except UnicodeDecodeError:
            raise ParseError(NOT_UTF8) from None
        except ValueError:
            raise ParseError("Too many fields.") from None


class MultiPartParser(parsers.MultiPartParser):
    def parse(self, stream, media_type=None, parser_context=None):
        text = read_text(stream)
        media_type = f"multipart/form-data;{media_type.partition(';')[2]}"  # in lower case, as Django's parser expects it
        # Django's parser would replace bytes that are not UTF-8, which a part in base64 can hold.
        parsed = super().parse(io.BytesIO(text.encode()), media_type, {**parser_context, "encoding": "latin-1"})
        _, parameters = parse_header_parameters(media_type)
        if f"\n--{parameters['boundary']}--" not in f"\n{text}":  # DRF's parser accepts a part that was cut short
            raise ParseError("The form is incomplete.")
        try:
            pairs = [(decode(name), decode(value)) for name, values in parsed.data.lists() for value in values]
        except UnicodeDecodeError:
            raise ParseError(NOT_UTF8) from None
        return parsers.DataAndFiles(unique_fields(pairs), parsed.files.dict())


def decode(text: str) -> str:
    """Return the text of bytes in UTF-8 that were read as Latin-1."""
    return text.encode("latin-1").decode()
