"""The control API under `/sandbox/`: settings, faults, recorded requests and a reset. It needs no API key.

`/sandbox/` and `/` show a web page with a button for each scenario.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.api.external_usage import FIELDS, bill
from voicecare.providers.elevenlabs.sandbox.config import SandboxConfig
from voicecare.providers.elevenlabs.sandbox.errors import PRESETS, ApiError
from voicecare.providers.elevenlabs.sandbox.faults.faults import (
    COMMON_FIELDS,
    FIELDS_BY_KIND,
    MATCH_FIELDS,
    InvalidControlRequest,
    reject_unknown_fields,
)
from voicecare.providers.elevenlabs.sandbox.scenarios import OFF, SCENARIOS, apply_scenario
from voicecare.providers.elevenlabs.sandbox.state import SANDBOX, Sandbox

Command = Callable[[Sandbox, Any], Any]

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>voicecare sandbox</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,"><style>
:root{{color-scheme:light dark}}
body{{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em;overflow-wrap:break-word}}
code{{background:#8883}}
button{{font:inherit;min-width:8em;padding:.3em .6em;cursor:pointer}}
.hear{{display:grid;grid-template-columns:auto 1fr;gap:.6em 1em;align-items:center}}.hear p{{margin:0}}
</style></head><body><h1>The sandbox provider</h1>
<p>This server imitates the ElevenLabs API, with real speech, so that voicecare runs without an account. Any
<code>xi-api-key</code> that is not empty is accepted, unless the setting <code>api_key</code> names one.
No data leaves this machine, and all data is lost when it stops.</p>
<h2>Try a failure</h2><p>Choose a failure, then listen to what a patient hears. Only one is active at a time.
Active now: {now}. The command <code>manage.py sandbox_fault</code> does the same.
To end <code>voice-gone</code>, use the command. It also restores the voices that voicecare has marked as
unavailable.</p>
<form method="post" action="/sandbox/scenario" class="hear">{buttons}</form>
<h2>Control</h2><ul>
<li><code>GET</code>, <code>PUT /sandbox/settings</code>: {settings}</li>
<li><code>GET</code>, <code>POST</code>, <code>DELETE /sandbox/faults</code>: list, add or remove faults</li>
<li><code>POST /sandbox/scenario</code> with <code>name</code>: same as a button above; <code>GET</code>: the chosen
one</li>
<li><code>GET /sandbox/requests</code>: all speech requests, in order of arrival</li>
<li><code>GET /sandbox/account</code>: what was billed</li>
<li><code>POST /sandbox/sales</code>: add usage by another user of the account: {sales}</li>
<li><code>GET</code>, <code>POST /sandbox/voices</code>: list voices, or add one (<code>name</code>,
<code>category</code>, <code>labels</code>, <code>rate</code>, and <code>needs_plan</code>: its speech is answered with
402)</li>
<li><code>POST /sandbox/voices/retire</code>: let the voice <code>voice_id</code> end <code>in_days</code>, or at once
(0)</li>
<li><code>POST /sandbox/reset</code>: back to the initial state</li></ul>
<h2>Faults</h2><p>Fields of every fault: {common}. Fields of <code>match</code>: {matches}. Kinds, with their own
fields:</p><ul>{kinds}</ul>
<p>Presets of <code>error</code>: {presets}.</p></body></html>"""
BUTTON = """<button name="name" value="{name}" aria-describedby="{name}">{name}</button><p id="{name}">{heard}</p>"""


def json_route(command: Command, status: int = 200) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Returns a request handler that calls `command` and responds with its result as JSON.

    The command gets the sandbox and the parsed JSON body, or None without a body. If it raises InvalidControlRequest,
    the response is 400 with the message.
    """

    async def handler(request: web.Request) -> web.Response:
        try:
            body = await request.json() if request.can_read_body else None
            return web.json_response(command(request.app[SANDBOX], body), status=status)
        except ValueError as error:
            problem = str(error) if isinstance(error, InvalidControlRequest) else "The body is not JSON."
            return web.json_response({"error": problem}, status=400)

    return handler


def read_settings(sandbox: Sandbox, _body: object) -> dict[str, Any]:
    return asdict(sandbox.config)


def change_settings(sandbox: Sandbox, body: object) -> dict[str, Any]:
    sandbox.scenario = ""
    sandbox.config.update(body)
    return asdict(sandbox.config)


def list_faults(sandbox: Sandbox, _body: object) -> list[dict[str, Any]]:
    return sandbox.faults.to_json()


def add_fault(sandbox: Sandbox, body: object) -> dict[str, Any]:
    sandbox.scenario = ""
    return sandbox.faults.add(body).to_json()


def clear_faults(sandbox: Sandbox, _body: object) -> list[dict[str, Any]]:
    sandbox.faults.clear()
    sandbox.scenario = ""
    return []


def list_requests(sandbox: Sandbox, _body: object) -> list[dict[str, Any]]:
    return sandbox.request_log.to_json()


def account(sandbox: Sandbox, _body: object) -> dict[str, Any]:
    """Returns the totals of all billed requests since the start, the requests in progress, and the subscription."""
    billed = sandbox.account.billed_requests
    return {
        "requests": len(billed),
        "characters": sum(request.characters for request in billed),
        "credits": sum(request.credits for request in billed),
        "in_flight": {group: sandbox.concurrency.in_flight[group] for group in ("standard", "turbo")},
        **sandbox.account.subscription(sandbox.voices.slots_used),
    }


def add_external_usage(sandbox: Sandbox, body: object) -> dict[str, Any]:
    return asdict(bill(sandbox, body))


def list_voices(sandbox: Sandbox, _body: object) -> list[dict[str, Any]]:
    return [voice.to_json() for voice in sandbox.voices.all()]


def add_voice(sandbox: Sandbox, body: object) -> dict[str, Any]:
    """Adds a voice that is not a clone, and returns it.

    Without `category` it is a voice that the account has designed.
    """
    defaults = {"name": "", "category": "generated", "labels": {}, "rate": 1.0, "needs_plan": False}
    return sandbox.voices.add(**_fields(body, defaults)).to_json()


def retire_voice(sandbox: Sandbox, body: object) -> dict[str, Any]:
    """Makes a voice disappear after `in_days` days, which may be a fraction. 0 means immediately."""
    fields = _fields(body, {"voice_id": "", "in_days": 0.0})
    try:
        return sandbox.voices.retire(**fields).to_json()
    except ApiError as error:
        raise InvalidControlRequest("There is no such voice.") from error


def _fields(body: object, defaults: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of the body. A missing field gets its default.

    The type of each default is the type that the field must have. Raises InvalidControlRequest for any other value.
    """
    if not isinstance(body, dict):
        raise InvalidControlRequest("The body must be an object.")
    reject_unknown_fields(body, tuple(defaults), "voices")
    for name, value in body.items():
        kinds = (int, float) if isinstance(defaults[name], float) else type(defaults[name])
        if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(defaults[name], bool)):
            raise InvalidControlRequest(f"`{name}` cannot be {value!r}.")
    return {**defaults, **body}


def reset(sandbox: Sandbox, _body: object) -> dict[str, Any]:
    sandbox.reset()
    return asdict(sandbox.config)


def read_scenario(sandbox: Sandbox, _body: object) -> dict[str, str]:
    """Returns the name of the scenario that was chosen. It is empty if faults or settings were changed since then."""
    return {"name": sandbox.scenario}


async def choose_scenario(request: web.Request) -> web.Response:
    """Applies the scenario named in the form, then redirects to the page. Responds with 400 for an unknown name.

    The buttons of the page and `manage.py sandbox_fault` send this request.
    """
    try:
        apply_scenario(request.app[SANDBOX], str((await request.post()).get("name")))
    except InvalidControlRequest as error:
        return web.json_response({"error": str(error)}, status=400)
    raise web.HTTPSeeOther("/sandbox/")


async def page(request: web.Request) -> web.Response:
    sandbox = request.app[SANDBOX]
    # the active faults and degraded settings
    active = [fault["preset"] or fault["kind"] for fault in sandbox.faults.to_json() if not fault["spent"]]
    if sandbox.config.first_byte_ms > sandbox.first_byte_ms:
        active.append(f"first byte after {sandbox.config.first_byte_ms:g} ms")
    if sandbox.config.characters_used >= sandbox.config.character_limit:
        active.append("the quota is used up")
    kinds = "".join(f"<li><code>{kind}</code> {', '.join(names)}</li>" for kind, names in FIELDS_BY_KIND.items())
    buttons = "".join(BUTTON.format(name=name, heard=scenario.effect) for name, scenario in SCENARIOS.items())
    html = PAGE.format(
        now=", ".join(active) or OFF,
        buttons=buttons,
        settings=", ".join(asdict(SandboxConfig())),
        sales=", ".join(FIELDS),
        common=", ".join(COMMON_FIELDS),
        matches=", ".join(MATCH_FIELDS),
        kinds=kinds,
        presets=", ".join(PRESETS),
    )
    return web.Response(text=html, content_type="text/html")


def add_routes(router: web.UrlDispatcher) -> None:
    router.add_get("/", page)
    router.add_get("/sandbox/", page)
    router.add_get("/sandbox/scenario", json_route(read_scenario))
    router.add_post("/sandbox/scenario", choose_scenario)
    router.add_get("/sandbox/settings", json_route(read_settings))
    router.add_put("/sandbox/settings", json_route(change_settings))
    router.add_get("/sandbox/faults", json_route(list_faults))
    router.add_post("/sandbox/faults", json_route(add_fault, 201))
    router.add_delete("/sandbox/faults", json_route(clear_faults))
    router.add_get("/sandbox/requests", json_route(list_requests))
    router.add_get("/sandbox/account", json_route(account))
    router.add_post("/sandbox/sales", json_route(add_external_usage, 201))
    router.add_get("/sandbox/voices", json_route(list_voices))
    router.add_post("/sandbox/voices", json_route(add_voice, 201))
    router.add_post("/sandbox/voices/retire", json_route(retire_voice))
    router.add_post("/sandbox/reset", json_route(reset))
