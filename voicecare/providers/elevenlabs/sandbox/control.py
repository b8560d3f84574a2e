"""`/sandbox/`: what the provider has no door for. Settings, faults, the requests seen, and a reset; no key needed.

The page of it, with a button for each degradation, is at `/sandbox/` and at `/`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.api.external_usage import FIELDS, sell
from voicecare.providers.elevenlabs.sandbox.config import Knobs
from voicecare.providers.elevenlabs.sandbox.errors import PRESETS
from voicecare.providers.elevenlabs.sandbox.faults.faults import COMMON, KINDS, MATCHES, BadRequest
from voicecare.providers.elevenlabs.sandbox.scenarios import OFF, SCENARIOS, play
from voicecare.providers.elevenlabs.sandbox.state import SANDBOX, Sandbox

Command = Callable[[Sandbox, Any], Any]

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>voicecare sandbox</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root{{color-scheme:light dark}}
body{{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em;overflow-wrap:break-word}}
code{{background:#8883}}
button{{font:inherit;min-width:8em;padding:.3em .6em;cursor:pointer}}
.hear{{display:grid;grid-template-columns:auto 1fr;gap:.6em 1em;align-items:center}}.hear p{{margin:0}}
</style></head><body><h1>The built-in provider</h1>
<p>This imitates the ElevenLabs API on this machine, with real speech, so that voicecare runs without an account. Any
non-empty <code>xi-api-key</code> is accepted. Nothing here leaves this machine, and nothing is kept after it stops.</p>
<h2>Hear it fail</h2><p>Each replaces the one before. Now: {now}. <code>manage.py sandbox_fault</code> does the same.
End <code>voice-gone</code> there: that also makes usable again what voicecare has marked as gone.</p>
<form method="post" action="/sandbox/scenario" class="hear">{buttons}</form>
<h2>Control</h2><ul>
<li><code>GET</code>, <code>PUT /sandbox/settings</code>: {settings}</li>
<li><code>GET</code>, <code>POST</code>, <code>DELETE /sandbox/faults</code>: what shall break next</li>
<li><code>POST /sandbox/scenario</code> with <code>name</code>: one of the buttons above</li>
<li><code>GET /sandbox/requests</code>: every speech request seen, in order</li>
<li><code>GET /sandbox/account</code>: what was billed</li>
<li><code>POST /sandbox/sales</code>: what somebody else used of the account: {sales}</li>
<li><code>POST /sandbox/reset</code>: everything back to the start</li></ul>
<h2>Faults</h2><p>Common fields: {common}; <code>match</code> holds {matches}.</p><ul>{kinds}</ul>
<p>Presets of <code>error</code>: {presets}.</p></body></html>"""
BUTTON = """<button name="name" value="{name}" aria-describedby="{name}">{name}</button><p id="{name}">{heard}</p>"""


def control(command: Command, status: int = 200) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A route from a function of the sandbox and the request's JSON (None without a body)."""

    async def handler(request: web.Request) -> web.Response:
        try:
            wanted = await request.json() if request.can_read_body else None
            return web.json_response(command(request.app[SANDBOX], wanted), status=status)
        except ValueError as error:
            problem = str(error) if isinstance(error, BadRequest) else "The body is not JSON."
            return web.json_response({"error": problem}, status=400)

    return handler


def read_settings(sandbox: Sandbox, _wanted: object) -> dict[str, Any]:
    return asdict(sandbox.knobs)


def change_settings(sandbox: Sandbox, wanted: object) -> dict[str, Any]:
    sandbox.knobs.change(wanted)
    return asdict(sandbox.knobs)


def list_faults(sandbox: Sandbox, _wanted: object) -> list[dict[str, Any]]:
    return sandbox.faults.listed()


def add_fault(sandbox: Sandbox, wanted: object) -> dict[str, Any]:
    return sandbox.faults.add(wanted).as_json()


def clear_faults(sandbox: Sandbox, _wanted: object) -> list[dict[str, Any]]:
    sandbox.faults.clear()
    return []


def list_requests(sandbox: Sandbox, _wanted: object) -> list[dict[str, Any]]:
    return sandbox.records.listed()


def account(sandbox: Sandbox, _wanted: object) -> dict[str, Any]:
    """Sums over everything billed since the start, and what is in flight now."""
    sales = sandbox.account.sales
    return {
        "requests": len(sales),
        "characters": sum(sale.characters for sale in sales),
        "credits": sum(sale.credits for sale in sales),
        "in_flight": {group: sandbox.slots.in_flight[group] for group in ("standard", "turbo")},
        **sandbox.account.subscription(sandbox.voices.slots_used),
    }


def add_sale(sandbox: Sandbox, wanted: object) -> dict[str, Any]:
    return asdict(sell(sandbox, wanted))


def reset(sandbox: Sandbox, _wanted: object) -> dict[str, Any]:
    sandbox.reset()
    return asdict(sandbox.knobs)


async def play_scenario(request: web.Request) -> web.Response:
    """From the page's form, or from `manage.py sandbox_fault`; the page again afterwards."""
    try:
        play(request.app[SANDBOX], str((await request.post()).get("name")))
    except BadRequest as error:
        return web.json_response({"error": str(error)}, status=400)
    raise web.HTTPSeeOther("/sandbox/")


async def page(request: web.Request) -> web.Response:
    kinds = "".join(f"<li><code>{kind}</code> {', '.join(names)}</li>" for kind, names in KINDS.items())
    buttons = "".join(BUTTON.format(name=name, heard=scenario.heard) for name, scenario in SCENARIOS.items())
    html = PAGE.format(
        now=_amiss(request.app[SANDBOX]),
        buttons=buttons,
        settings=", ".join(asdict(Knobs())),
        sales=", ".join(FIELDS),
        common=", ".join(COMMON),
        matches=", ".join(MATCHES),
        kinds=kinds,
        presets=", ".join(PRESETS),
    )
    return web.Response(text=html, content_type="text/html")


def _amiss(sandbox: Sandbox) -> str:
    """What is out of order, whoever ordered it."""
    found = [fault["preset"] or fault["kind"] for fault in sandbox.faults.listed() if not fault["spent"]]
    if sandbox.knobs.first_byte_ms > sandbox.first_byte_ms:
        found.append(f"the first byte after {sandbox.knobs.first_byte_ms:g} ms")
    if sandbox.knobs.characters_used >= sandbox.knobs.character_limit:
        found.append("the quota is spent")
    return ", ".join(found) or OFF


def add_routes(router: web.UrlDispatcher) -> None:
    router.add_get("/", page)
    router.add_get("/sandbox/", page)
    router.add_post("/sandbox/scenario", play_scenario)
    router.add_get("/sandbox/settings", control(read_settings))
    router.add_put("/sandbox/settings", control(change_settings))
    router.add_get("/sandbox/faults", control(list_faults))
    router.add_post("/sandbox/faults", control(add_fault, 201))
    router.add_delete("/sandbox/faults", control(clear_faults))
    router.add_get("/sandbox/requests", control(list_requests))
    router.add_get("/sandbox/account", control(account))
    router.add_post("/sandbox/sales", control(add_sale, 201))
    router.add_post("/sandbox/reset", control(reset))
