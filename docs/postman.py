"""Makes the Postman collection from the API's schema: `make postman`.

The collection runs from top to bottom, in the order in which a new user would send the requests. The users of the examples,
alice and bob, get new names in every run. Register and login store the token that all other requests send.
"""

import json
import sys

JOURNEY = [
    "check_health",
    "check_readiness",
    "register",
    "log_in",
    "show_account",
    "send_message",
    "show_message",
    "list_messages",
    "list_sent_messages",
    "list_received_messages",
    "list_conversations",
    "mark_conversation_read",
    "block_user",
    "list_blocks",
    "unblock_user",
    "list_sessions",
    "end_session",
    "change_password",
    "log_out",
    "log_out_everywhere",
    "delete_account",
]
VARIABLES = {"alice": "{{user}}", "bob": "{{partner}}"}
NEW_NAMES = """\
const run = pm.variables.replaceIn("{{$randomUUID}}").slice(0, 8);
pm.collectionVariables.set("user", "alice-" + run);
pm.collectionVariables.set("partner", "bob-" + run);
pm.sendRequest({
  url: pm.variables.get("baseUrl") + "/api/auth/register",
  method: "POST",
  header: {"Content-Type": "application/json"},
  body: {mode: "raw", raw: JSON.stringify({username: "bob-" + run, password: "another secret"})},
});"""
KEEP_SESSION = 'pm.collectionVariables.set("token", pm.response.json().token);'
KEEP_MESSAGE = 'pm.collectionVariables.set("message", pm.response.json().id);'
LOG_IN_AGAIN = """\
pm.sendRequest({
  url: pm.variables.get("baseUrl") + "/api/auth/login",
  method: "POST",
  header: {"Content-Type": "application/json"},
  body: {mode: "raw", raw: JSON.stringify({username: pm.collectionVariables.get("user"), password: "a longer secret"})},
}, (error, response) => pm.collectionVariables.set("token", response.json().token));"""
KEEP_OTHER_SESSION = """\
const other = pm.response.json().results.find((session) => !session.current);
pm.collectionVariables.set("session", other.id);"""
AFTER = {
    "register": KEEP_SESSION,
    "log_in": KEEP_SESSION,
    "send_message": KEEP_MESSAGE,
    "list_sessions": KEEP_OTHER_SESSION,
}
BEFORE = {"register": NEW_NAMES, "log_out_everywhere": LOG_IN_AGAIN, "delete_account": LOG_IN_AGAIN}


def script(event: str, code: str) -> dict:
    return {"listen": event, "script": {"type": "text/javascript", "exec": code.splitlines()}}


def with_variables(value):
    """The value of an example with variables of the collection in place of its users and its message id."""
    if isinstance(value, dict):
        return {key: "{{message}}" if key == "up_to" else with_variables(inner) for key, inner in value.items()}
    return VARIABLES.get(value, value) if isinstance(value, str) else value


def item(path: str, method: str, operation: dict) -> dict:
    name = operation["operationId"]
    status = next(status for status in operation["responses"] if status.startswith("2"))
    test = f'pm.test("{name} returns {status}", () => pm.response.to.have.status({status}));'
    path = path.replace("{username}", "{{partner}}").replace("{id}", "{{message}}").replace("{session_id}", "{{session}}")
    request = {
        "method": method.upper(),
        "description": operation["summary"],
        "header": [],
        "url": {"raw": f"{{{{baseUrl}}}}{path}", "host": ["{{baseUrl}}"], "path": path.strip("/").split("/")},
    }
    if not any("token" in scheme for scheme in operation.get("security", [])):
        request["auth"] = {"type": "noauth"}
    if "requestBody" in operation:
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        body = with_variables(next(iter(examples.values()))["value"])
        raw = json.dumps(body, indent=2, ensure_ascii=False).replace('"{{message}}"', "{{message}}")
        request["header"] = [{"key": "Content-Type", "value": "application/json"}]
        request["body"] = {"mode": "raw", "raw": raw, "options": {"raw": {"language": "json"}}}
    events = [script("test", "\n".join(filter(None, (test, AFTER.get(name)))))]
    if name in BEFORE:
        events.append(script("prerequest", BEFORE[name]))
    return {"name": operation["summary"], "event": events, "request": request}


def collection(description: dict) -> dict:
    operations = {
        operation["operationId"]: (path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }
    if set(operations) != set(JOURNEY):
        sys.exit(f"JOURNEY and the schema differ in {sorted(set(operations) ^ set(JOURNEY))}.")
    return {
        "info": {
            "name": description["info"]["title"],
            "description": description["info"]["description"],
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}]},
        "variable": [
            {"key": "baseUrl", "value": "http://127.0.0.1:8000"},
            *({"key": key, "value": ""} for key in ("token", "user", "partner", "message", "session")),
        ],
        "item": [item(*operations[name]) for name in JOURNEY],
    }


json.dump(collection(json.load(sys.stdin)), sys.stdout, indent=2, ensure_ascii=False)
sys.stdout.write("\n")
