"""The yardstick `floor`: what the service does, as a bare WSGI callable with hand-written SQL on psycopg.

It answers well-formed requests on the service's own tables, keeps its places, counters, blocks, limits and logs, and leaves
out what makes a service of it: checking what comes in, refusing it clearly, and being read and changed by others.
"""

import hashlib
import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import psycopg
from nacl.bindings import crypto_pwhash_str_verify

PAGE = 20
SEND_LIMIT, SEND_WINDOW = 3000, timedelta(seconds=60)
ROW = "m.id, s.username, r.username, m.content, m.created, m.read"
NAMED = "JOIN auth_user s ON s.id = m.sender_id JOIN auth_user r ON r.id = m.receiver_id"

IDENTIFY = """
    SELECT t.user_id, u.username, b.total, b.conversations
    FROM knox_authtoken t JOIN auth_user u ON u.id = t.user_id LEFT JOIN messageservice_mailbox b ON b.user_id = t.user_id
    WHERE t.digest = %s AND t.expiry > now() AND u.is_active
"""
MAILBOX = f"""
    SELECT {ROW} FROM (
        SELECT * FROM messageservice_message WHERE sender_id = %(user)s AND sender_place BETWEEN %(first)s AND %(last)s
        UNION ALL
        SELECT * FROM messageservice_message WHERE receiver_id = %(user)s AND receiver_place BETWEEN %(first)s AND %(last)s
        AND sender_id <> receiver_id
    ) m {NAMED} ORDER BY m.id DESC
"""
AFTER = f"""
    SELECT {ROW} FROM messageservice_message m {NAMED} WHERE m.id IN (
        (SELECT id FROM messageservice_message WHERE sender_id = %(user)s AND id > %(after)s ORDER BY id LIMIT 21)
        UNION ALL
        (SELECT id FROM messageservice_message WHERE receiver_id = %(user)s AND id > %(after)s ORDER BY id LIMIT 21)
    ) ORDER BY m.id DESC
"""
OLDER = """
    SELECT EXISTS (SELECT FROM messageservice_message WHERE sender_id = %(user)s AND id <= %(after)s)
    OR EXISTS (SELECT FROM messageservice_message WHERE receiver_id = %(user)s AND id <= %(after)s)
"""
SENT_ON_DAY = f"""
    SELECT {ROW}, count(*) OVER () FROM messageservice_message m {NAMED}
    WHERE m.sender_id = %(user)s AND r.username = %(receiver)s AND m.created >= %(day)s AND m.created < %(next_day)s
    ORDER BY m.id DESC LIMIT 20
"""
CONVERSATIONS = f"""
    SELECT {ROW}, c.unread FROM (
        SELECT * FROM messageservice_conversation WHERE owner_id = %(user)s ORDER BY last_message_id DESC LIMIT 20
    ) c JOIN messageservice_message m ON m.id = c.last_message_id {NAMED} ORDER BY m.id DESC
"""
LOCK = """
    SELECT b.user_id, b.total, b.window_sent, b.window_ends, u.username,
        EXISTS (SELECT FROM blocking_block k WHERE k.blocker_id = b.user_id AND k.blocked_id = %(sender)s)
    FROM messageservice_mailbox b JOIN auth_user u ON u.id = b.user_id
    WHERE b.user_id IN (%(sender)s, (SELECT id FROM auth_user WHERE username = %(receiver)s))
    ORDER BY b.user_id FOR UPDATE OF b
"""
STORE = """
    WITH m AS (
        INSERT INTO messageservice_message (sender_id, receiver_id, content, created, sender_place, receiver_place)
        VALUES (%(sender)s, %(receiver)s, %(content)s, %(now)s, %(sender_place)s, %(receiver_place)s) RETURNING id
    ), b AS (
        UPDATE messageservice_mailbox b SET total = b.total + 1, sent = b.sent + d.sent, received = b.received + d.received,
            unread = b.unread + d.received, window_sent = b.window_sent + d.sent,
            conversations = b.conversations + CASE WHEN EXISTS (
                SELECT FROM messageservice_conversation WHERE owner_id = %(sender)s AND partner_id = %(receiver)s
            ) THEN 0 ELSE 1 END,
            window_ends = CASE WHEN d.sent = 1 THEN %(window_ends)s ELSE b.window_ends END
        FROM (VALUES (%(sender)s, 1, 0), (%(receiver)s, 0, 1)) d (user_id, sent, received) WHERE b.user_id = d.user_id
    ), c AS (
        INSERT INTO messageservice_conversation AS c (owner_id, partner_id, sent, received, unread, last_message_id)
        SELECT %(sender)s, %(receiver)s, 1, 0, 0, id FROM m UNION ALL SELECT %(receiver)s, %(sender)s, 0, 1, 1, id FROM m
        ON CONFLICT (owner_id, partner_id) DO UPDATE SET sent = c.sent + excluded.sent,
            received = c.received + excluded.received, unread = c.unread + excluded.unread,
            last_message_id = excluded.last_message_id
    )
    SELECT id FROM m
"""
FIND_USER = "SELECT id, password, email FROM auth_user WHERE username = %s AND is_active"
ADD_TOKEN = "INSERT INTO knox_authtoken (digest, token_key, user_id, created, expiry) VALUES (%s, %s, %s, %s, %s)"  # noqa: S105

hashing = threading.Lock()  # several at once cost more
local = threading.local()
logs = {
    name: os.open(os.path.join(os.environ["LOG_DIR"], f"{name}.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for name in ("requests", "activity")
}


def connection():
    if not hasattr(local, "connection"):
        local.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=0)
    return local.connection


def log(name, **fields):
    os.write(logs[name], f"{json.dumps({'time': shown(datetime.now(UTC)), **fields})}\n".encode())


def shown(time):
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def message(row):
    pk, sender, receiver, content, created, read = row[:6]
    return {
        "id": pk,
        "sender": sender,
        "receiver": receiver,
        "content": content,
        "created": shown(created),
        "read": read and shown(read),
    }


def page(count, number, rows, path):
    url = f"http://127.0.0.1{path}?page="
    return {
        "count": count,
        "next": f"{url}{number + 1}" if number * PAGE < count else None,
        "previous": f"{url}{number - 1}" if number > 1 else None,
        "results": rows,
    }


def list_mailbox(user, path, parameters):
    number = int(parameters.get("page", 1))
    last = user["total"] - (number - 1) * PAGE
    places = {"user": user["id"], "first": last - PAGE + 1, "last": last}
    rows = connection().execute(MAILBOX, places).fetchall()
    return page(user["total"], number, [message(row) for row in rows], path)


def list_after(user, path, parameters):
    place = {"user": user["id"], "after": int(parameters["after"])}
    rows = connection().execute(AFTER, place).fetchall()
    older = connection().execute(OLDER, place).fetchone()[0]
    return {
        "next": None,
        "previous": f"{path}?before={rows[-1][0]}" if rows and older else None,
        "results": [*map(message, rows)],
    }


def list_sent(user, path, parameters):
    day = datetime.fromisoformat(parameters["date"]).replace(tzinfo=UTC)
    wanted = {"user": user["id"], "receiver": parameters["receiver"], "day": day, "next_day": day + timedelta(days=1)}
    rows = connection().execute(SENT_ON_DAY, wanted).fetchall()
    return page(rows[0][-1] if rows else 0, 1, [message(row) for row in rows], path)


def partner(user, row):
    return row[2] if row[1] == user["username"] else row[1]


def list_conversations(user, path, parameters):
    rows = connection().execute(CONVERSATIONS, {"user": user["id"]}).fetchall()
    return page(
        user["conversations"],
        1,
        [{"user": partner(user, row), "last_message": message(row), "unread": row[6]} for row in rows],
        path,
    )


def send(user, body):
    now = datetime.now(UTC)
    with connection().transaction():
        wanted = {"sender": user["id"], "receiver": body["receiver"]}
        mailboxes = {row[4]: row for row in connection().execute(LOCK, wanted).fetchall()}
        sender, receiver = mailboxes[user["username"]], mailboxes[body["receiver"]]
        if receiver[5]:
            return 403, {"detail": "blocked"}
        window_ends = sender[3]
        if window_ends is None or window_ends <= now:
            window_ends = now + SEND_WINDOW
        elif sender[2] >= SEND_LIMIT:
            return 429, {"detail": "too many"}
        stored = {
            "sender": sender[0],
            "receiver": receiver[0],
            "content": body["content"],
            "now": now,
            "sender_place": sender[1] + 1,
            "receiver_place": receiver[1] + 1,
            "window_ends": window_ends,
        }
        pk = connection().execute(STORE, stored).fetchone()[0]
    log("activity", event="Successful Message", who=user["username"], whom=body["receiver"])
    return 201, message((pk, user["username"], body["receiver"], body["content"], now, None))


def log_in(body):
    pk, password, email = connection().execute(FIND_USER, (body["username"],)).fetchone()
    with hashing:
        crypto_pwhash_str_verify(password.removeprefix("argon2").encode(), body["password"].encode())
    text = os.urandom(32).hex()
    now = datetime.now(UTC)
    expiry = now + timedelta(hours=10)
    connection().execute(ADD_TOKEN, (digest(text), text[:25], pk, now, expiry))
    log("activity", event="Login", who=body["username"])
    return {"user": {"username": body["username"], "email": email}, "token": text, "expiry": shown(expiry)}


def digest(token):
    return hashlib.sha512(token.encode()).hexdigest()


LISTS = {"/api/message": list_mailbox, "/api/message/sent": list_sent, "/api/conversation": list_conversations}


def application(environ, start_response):
    began = time.perf_counter()
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    request_id = environ.get("HTTP_X_REQUEST_ID") or os.urandom(16).hex()
    body = json.loads(environ["wsgi.input"].read()) if method == "POST" else None
    name = "-"
    if path == "/api/auth/login":
        status, answer = 200, log_in(body)
    elif "HTTP_AUTHORIZATION" not in environ:
        status, answer = 401, {"detail": "no token"}
    else:
        text = environ["HTTP_AUTHORIZATION"].partition(" ")[2]
        row = connection().execute(IDENTIFY, (digest(text),)).fetchone()
        user = dict(zip(("id", "username", "total", "conversations"), row, strict=True))
        name = user["username"]
        if method == "POST":
            status, answer = send(user, body)
        else:
            parameters = dict(parse_qsl(environ["QUERY_STRING"]))
            respond = list_after if "after" in parameters else LISTS[path]
            status, answer = 200, respond(user, path, parameters)
    content = json.dumps(answer, ensure_ascii=False).encode()
    log(
        "requests",
        request_id=request_id,
        method=method,
        path=path,
        status=status,
        milliseconds=round((time.perf_counter() - began) * 1000, 1),
        user=name,
        address=environ["REMOTE_ADDR"],
    )
    start_response(
        f"{status} OK",
        [("Content-Type", "application/json"), ("Content-Length", str(len(content))), ("X-Request-ID", request_id)],
    )
    return [content]
