"""Makes the Postman collection from the API's schema: `make postman`.

Each tag has a folder, with its requests in the order of the schema. They can be run from top to bottom.
If a request needs a token and there is none, the collection registers a new user, so each folder can be run alone as well.
The users of the examples, alice and bob, then get new names.
"""

import json
import sys

VARIABLES = {"alice": "{{user}}", "bob": "{{partner}}"}  # by value in an example
FIELDS = {  # by field of a request
    "password": "{{password}}",
    "current_password": "{{password}}",
    "receiver": "{{partner}}",
    "up_to": "{{message}}",
}
PATH = {"{username}": "{{partner}}", "{id}": "{{message}}", "{session_id}": "{{session}}"}

NEW_USER = """\
const kept = pm.collectionVariables;
const isRegistration = pm.request.url.getPath() === "/api/auth/register";
const needsToken = pm.request.auth?.type !== "noauth";
const register = (username, then) => pm.sendRequest({
  url: pm.variables.get("baseUrl") + "/api/auth/register",
  method: "POST",
  header: {"Content-Type": "application/json"},
  body: {mode: "raw", raw: JSON.stringify({username, password: kept.get("password")})},
}, then);
if (isRegistration || (needsToken && !kept.get("token"))) {
  const run = pm.variables.replaceIn("{{$randomUUID}}").slice(0, 8);
  kept.set("user", "alice-" + run);
  kept.set("partner", "bob-" + run);
  kept.set("password", "a long secret");
  register(kept.get("partner"));
  if (!isRegistration) {
    register(kept.get("user"), (error, response) => kept.set("token", response.json().token));
  }
}"""

KEEP_SESSION = 'pm.collectionVariables.set("token", pm.response.json().token);'
FORGET_SESSION = 'pm.collectionVariables.unset("token");'
AFTER = {
    "register": KEEP_SESSION,
    "log_in": KEEP_SESSION,
    "log_out": FORGET_SESSION,
    "log_out_everywhere": FORGET_SESSION,
    "list_sessions": 'pm.collectionVariables.set("session", pm.response.json().results[0].id);',
    "end_session": FORGET_SESSION,
    "change_password": 'pm.collectionVariables.set("password", JSON.parse(pm.request.body.raw).new_password);',
    "delete_account": FORGET_SESSION,
    "send_message": 'pm.collectionVariables.set("message", pm.response.json().id);',
}


def script(event: str, code: str) -> dict:
    return {"listen": event, "script": {"type": "text/javascript", "exec": code.splitlines()}}


def optional(parameter: dict) -> dict:
    """Return a URL parameter or header that is off until the user of the collection turns it on, unless it is required."""
    return {
        "key": parameter["name"],
        "value": str(parameter.get("example", parameter["schema"].get("default", ""))),
        "description": parameter.get("description", ""),
        "disabled": not parameter.get("required"),
    }


def body(example: dict) -> dict:
    """Return a request's example body, with variables of the collection in place of users, password and message id."""
    fields = {name: FIELDS.get(name, VARIABLES.get(str(value), value)) for name, value in example.items()}
    raw = json.dumps(fields, indent=2, ensure_ascii=False).replace('"{{message}}"', "{{message}}")
    return {"mode": "raw", "raw": raw, "options": {"raw": {"language": "json"}}}


def example(request: dict, status: str, response: dict) -> dict:
    """Return an example response: the schema's or, for errors, which have none there, the response's description."""
    saved = {"name": f"{status} {response['description']}", "originalRequest": request, "code": int(status)}
    content = response.get("content", {}).get("application/json")
    if content is None:
        return saved
    if "examples" in content:
        value = next(iter(content["examples"].values()))["value"]
    else:
        properties = content["schema"].get("properties", {"detail": {}})
        value = {
            name: rules.get("enum", [rules.get("example", response["description"])])[0] for name, rules in properties.items()
        }
    header = [{"key": "Content-Type", "value": "application/json"}]
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return {**saved, "header": header, "_postman_previewlanguage": "json", "body": text}


def item(path: str, method: str, operation: dict) -> dict:
    name, responses = operation["operationId"], operation["responses"]
    parameters = operation.get("parameters", [])
    needs_token = any("token" in scheme for scheme in operation.get("security", []))
    url = path
    for parameter, variable in PATH.items():
        url = url.replace(parameter, variable)
    request = {
        "method": method.upper(),
        "description": "\n\n".join(filter(None, (operation["summary"], operation.get("description")))),
        "header": [optional(parameter) for parameter in parameters if parameter["in"] == "header"],
        "url": {
            "raw": f"{{{{baseUrl}}}}{url}",
            "host": ["{{baseUrl}}"],
            "path": url.strip("/").split("/"),
            "query": [optional(parameter) for parameter in parameters if parameter["in"] == "query"],
        },
    }
    if not needs_token:
        request["auth"] = {"type": "noauth"}
    if "requestBody" in operation:
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        request["header"].append({"key": "Content-Type", "value": "application/json"})
        request["body"] = body(next(iter(examples.values()))["value"])
    success = next(status for status in responses if status.startswith("2"))
    error = "400" if "body" in request else "404" if "{" in path else "401" if needs_token else "503"
    test = f'pm.test("{name} returns {success}", () => pm.response.to.have.status({success}));'
    return {
        "name": operation["summary"],
        "event": [script("test", "\n".join(filter(None, (test, AFTER.get(name)))))],
        "request": request,
        "response": [example(request, status, responses[status]) for status in (success, error)],
    }


def collection(schema: dict) -> dict:
    folders = {tag["name"]: {**tag, "item": []} for tag in schema["tags"]}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            folders[operation["tags"][0]]["item"].append(item(path, method, operation))
    variables = {"baseUrl": "http://127.0.0.1:8000"}
    variables |= dict.fromkeys(("token", "user", "partner", "password", "message", "session"), "")
    return {
        "info": {
            "name": schema["info"]["title"],
            "description": schema["info"]["description"],
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}]},
        "event": [script("prerequest", NEW_USER)],
        "variable": [{"key": key, "value": value} for key, value in variables.items()],
        "item": list(folders.values()),
    }


json.dump(collection(json.load(sys.stdin)), sys.stdout, indent=2, ensure_ascii=False)
sys.stdout.write("\n")
