"""The service `floor`, to compare with: a bare WSGI callable with one hand-written statement per request.

It uses this service's tables, checks the token and the block, and keeps places and counters. It leaves out input checks,
error responses, logs, request ids, limits, idempotency keys, and every page and filter that is not measured.
"""

import hashlib
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import psycopg

ROW = "m.id, s.username, r.username, m.content, m.created, m.read"
NAMES = "JOIN auth_user s ON s.id = m.sender_id JOIN auth_user r ON r.id = m.receiver_id"
ME = """
    me AS (
        SELECT u.id, u.username, b.total FROM knox_authtoken t
        JOIN auth_user u ON u.id = t.user_id JOIN messageservice_mailbox b ON b.user_id = u.id
        WHERE t.digest = %(digest)s AND t.expiry > now() AND u.is_active
    )
"""
LIST = f"""
    WITH {ME} SELECT {ROW}, me.total FROM me CROSS JOIN LATERAL (
        SELECT * FROM messageservice_message WHERE sender_id = me.id
        AND sender_place BETWEEN me.total - 19 AND me.total
        UNION ALL SELECT * FROM messageservice_message WHERE receiver_id = me.id AND sender_id <> me.id
        AND receiver_place BETWEEN me.total - 19 AND me.total
    ) m {NAMES} ORDER BY m.id DESC
"""
SENT_ON_DAY = f"""
    WITH {ME} SELECT {ROW}, count(*) OVER () FROM me JOIN messageservice_message m ON m.sender_id = me.id {NAMES}
    WHERE r.username = %(receiver)s AND m.created >= %(day)s AND m.created < %(next_day)s
    ORDER BY m.id DESC LIMIT 20
"""
SEND = f"""
    WITH {ME}, you AS (
        SELECT id, username FROM auth_user WHERE username = %(receiver)s AND is_active AND NOT EXISTS (
            SELECT FROM blocking_block WHERE blocker_id = auth_user.id AND blocked_id = (SELECT id FROM me)
        )
    ), box AS (
        SELECT user_id, total FROM messageservice_mailbox
        WHERE user_id IN ((SELECT id FROM me), (SELECT id FROM you)) ORDER BY user_id FOR UPDATE
    ), m AS (
        INSERT INTO messageservice_message (sender_id, receiver_id, content, created, sender_place, receiver_place)
        SELECT me.id, you.id, %(content)s, clock_timestamp(), s.total + 1, r.total + 1
        FROM me JOIN box s ON s.user_id = me.id CROSS JOIN you JOIN box r ON r.user_id = you.id RETURNING *
    ), counters AS (
        UPDATE messageservice_mailbox b SET total = b.total + 1,
            sent = b.sent + CASE WHEN b.user_id = m.sender_id THEN 1 ELSE 0 END,
            received = b.received + CASE WHEN b.user_id = m.receiver_id THEN 1 ELSE 0 END,
            unread = b.unread + CASE WHEN b.user_id = m.receiver_id THEN 1 ELSE 0 END
        FROM m WHERE b.user_id IN (m.sender_id, m.receiver_id)
    ), conversations AS (
        INSERT INTO messageservice_conversation AS c (owner_id, partner_id, sent, received, unread, last_message_id)
        SELECT sender_id, receiver_id, 1, 0, 0, id FROM m UNION ALL SELECT receiver_id, sender_id, 0, 1, 1, id FROM m
        ON CONFLICT (owner_id, partner_id) DO UPDATE SET sent = c.sent + excluded.sent,
            received = c.received + excluded.received, unread = c.unread + excluded.unread,
            last_message_id = excluded.last_message_id
    )
    SELECT m.id, me.username, you.username, m.content, m.created, m.read FROM m, me, you
"""

local = threading.local()


def execute(statement, **parameters):
    if not hasattr(local, "connection"):
        local.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=0)
    return local.connection.execute(statement, parameters).fetchall()


def as_shown(row):
    pk, sender, receiver, content, created, read = row[:6]
    shown = {"id": pk, "sender": sender, "receiver": receiver, "content": content}
    return {**shown, "created": f"{created:%Y-%m-%dT%H:%M:%S.%fZ}", "read": read and f"{read:%Y-%m-%dT%H:%M:%S.%fZ}"}


def respond(environ):
    if environ["PATH_INFO"] == "/readyz":
        return "200 OK", {}
    token = environ["HTTP_AUTHORIZATION"].partition(" ")[2]
    digest = hashlib.sha512(token.encode()).hexdigest()
    if environ["REQUEST_METHOD"] == "POST":
        return "201 Created", as_shown(execute(SEND, digest=digest, **json.loads(environ["wsgi.input"].read()))[0])
    parameters = dict(parse_qsl(environ["QUERY_STRING"]))
    if "date" in parameters:
        day = datetime.fromisoformat(parameters["date"]).replace(tzinfo=UTC)
        days = {"day": day, "next_day": day + timedelta(days=1)}
        rows = execute(SENT_ON_DAY, digest=digest, receiver=parameters["receiver"], **days)
    else:
        rows = execute(LIST, digest=digest)
    count = rows[0][-1] if rows else 0
    following = f"http://127.0.0.1{environ['PATH_INFO']}?page=2" if count > 20 else None
    return "200 OK", {"count": count, "next": following, "previous": None, "results": [*map(as_shown, rows)]}


def application(environ, start_response):
    status, body = respond(environ)
    content = json.dumps(body, ensure_ascii=False).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
    return [content]
