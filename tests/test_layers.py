"""Import rules: which package may import which, read from every module's imports (type-checking imports included).

A violation is reported with file and line. The synthetic trees at the end prove that each rule can fail.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("voicecare", "tts", "usage", "cloning")

SHARED = {"voicecare.core", "voicecare.audio", "voicecare.providers", "voicecare.patients"}
WEB = {
    "voicecare.api",
    "voicecare.audit",
    *(f"voicecare.admin.{part}" for part in ("confirmation", "conflicts", "lists", "readonly", "periods", "titles")),
}
# Emitting events for integrators. `voicecare.webhooks` itself sends them, and imports more.
WEBHOOK_EVENTS = {f"voicecare.webhooks.{part}" for part in ("events", "models")}
# The parts that other apps may use.
USAGE = {"usage.ledger", "usage.alerts", "usage.provider_state", "usage.budgets", "usage.clinic_budgets"}

USAGE_DOMAIN = {
    *USAGE,
    "usage.models",
    "usage.prices",
    "usage.reports",
    "usage.reconciliation",
    "usage.provider_history",
}
CLONING_DOMAIN = {f"cloning.{part}" for part in ("models", "samples", "gateway", "consent", "jobs", "voices")}
TTS_VALUES = {"tts.states", "tts.queue_reason", "tts.outbox.claim"}  # plain values without Django
TTS_BASE = {*TTS_VALUES, "tts.models", "tts.text", "tts.speech", "tts.conversations", "tts.recorder"}
TTS_DOMAIN = {
    *TTS_BASE,
    *(f"tts.{part}" for part in ("outbox", "protocol", "resilience", "cache", "synthesis", "devices")),
}

# A module belongs to the longest prefix that matches it, and may import its own part and the parts named here.
MAY_IMPORT: Mapping[str, set[str]] = {
    "voicecare.core": set(),
    "voicecare.core.strict_json": set(),
    "voicecare.audio": set(),
    "voicecare.admin.confirmation": set(),
    "voicecare.admin.conflicts": set(),
    "voicecare.admin.lists": {"voicecare.core"},
    "voicecare.admin.periods": set(),
    "voicecare.admin.readonly": set(),
    "voicecare.admin.titles": set(),
    "voicecare.accounts": {"voicecare.core"},
    "voicecare.api": {"voicecare.core", "voicecare.accounts", "voicecare.audit"},
    "voicecare.audit": {"voicecare.core"},
    "voicecare.providers": {"voicecare.core"},
    "voicecare.providers.espeak": {"voicecare.audio", "voicecare.core"},
    "voicecare.providers.elevenlabs": {"voicecare.providers", "voicecare.audio", "voicecare.core"},
    "voicecare.patients": {"voicecare.core", *WEB},
    "voicecare.webhooks.addresses": {"voicecare.core"},
    "voicecare.webhooks.models": {"voicecare.webhooks.addresses", "voicecare.core", "voicecare.patients"},
    "voicecare.webhooks.events": {"voicecare.webhooks.models", "voicecare.core", "voicecare.patients"},
    "voicecare.webhooks.offline": {*WEBHOOK_EVENTS, "voicecare.core", "voicecare.patients"},
    "voicecare.webhooks": {
        *(*WEBHOOK_EVENTS, "voicecare.webhooks.addresses", "usage.alerts", "usage.models"),
        *("voicecare.core", "voicecare.patients", *WEB),
    },
    "usage.models": SHARED,
    "usage.ledger": {"usage.models", *SHARED},
    "usage.alerts": {"usage.models", *WEBHOOK_EVENTS, *SHARED},
    "usage.prices": {"usage.models"},
    "usage.budgets": {"usage.ledger", "usage.alerts", "usage.prices", "usage.models", *SHARED},
    "usage.clinic_budgets": {"usage.budgets", "usage.alerts", "usage.models", *SHARED},
    "usage.reports": {"usage.ledger", "usage.alerts", "usage.prices", "usage.models", *SHARED},
    "usage.provider_state": {*USAGE, "usage.reports", "usage.models", *SHARED},
    "usage.reconciliation": {*USAGE_DOMAIN - {"usage.provider_history"}, *SHARED},
    "usage.provider_history": {*USAGE_DOMAIN, *SHARED},
    "usage": {*USAGE_DOMAIN, *SHARED, *WEB},
    "cloning.models": SHARED,
    "cloning.samples": {"voicecare.core", "voicecare.audio"},
    "cloning.gateway": {"cloning.models", "cloning.samples", "usage.alerts", "usage.provider_state", *SHARED},
    "cloning.consent": {
        "cloning.gateway",
        "cloning.models",
        "cloning.samples",
        *("usage.alerts", "usage.provider_history"),
        *SHARED,
    },
    "cloning.jobs": {*CLONING_DOMAIN - {"cloning.voices"}, "usage.alerts", *WEBHOOK_EVENTS, *SHARED},
    "cloning.voices": {*CLONING_DOMAIN, "usage.alerts", *SHARED},
    "cloning": {*CLONING_DOMAIN, "usage.alerts", *SHARED, *WEB},
    "tts.states": set(),
    "tts.queue_reason": set(),
    "tts.outbox.claim": {"tts.states"},
    "tts.text": set(),
    "tts.speech": {*TTS_VALUES, "tts.text"},
    "tts.models": {*TTS_VALUES, *SHARED},
    "tts.outbox": {*TTS_VALUES, "tts.models", *WEBHOOK_EVENTS, *SHARED},
    "tts.conversations": {*TTS_VALUES, "tts.text", "tts.models", *SHARED},
    "tts.conversations.retention": {
        *(*TTS_VALUES, "tts.outbox", "tts.models", "usage.ledger", "usage.provider_history"),
        *("voicecare.webhooks.events", *SHARED),
    },
    "tts.recorder": {*TTS_BASE, "tts.outbox", "usage.ledger", *SHARED},
    "tts.protocol": {
        *TTS_VALUES,
        *("tts.conversations.context", "tts.speech", "tts.text"),
        *("voicecare.audio", "voicecare.core.strict_json"),
    },
    "tts.resilience": {*TTS_BASE, *USAGE, *SHARED},
    "tts.cache": {*TTS_BASE, "tts.resilience", *USAGE, *SHARED},
    "tts.synthesis": {*TTS_BASE, "tts.resilience", "tts.cache", *USAGE, *SHARED},
    "tts.devices": {*TTS_DOMAIN, *USAGE, *SHARED},
    "tts.runtime": {*TTS_DOMAIN, "voicecare.webhooks.offline", *USAGE, *SHARED},
    "tts.api": {*TTS_DOMAIN - {"tts.devices"}, "tts.runtime", *USAGE, *SHARED, *WEB},
    "tts": {*TTS_DOMAIN, "tts.api", "tts.runtime", *USAGE, *SHARED, *WEB},
    # The composition root: imports anything, and nobody outside of it imports it.
    "voicecare": {*PACKAGES},
}
COMPOSITION_ROOT = "voicecare"
FORBIDDEN_NAMES = {"utils", "helpers", "services"}


@dataclass(frozen=True)
class Module:
    name: str
    path: Path

    @property
    def part(self) -> str:
        return part_of(self.name)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def part_of(name: str) -> str:
    return max((part for part in MAY_IMPORT if within(name, part)), key=len)


def modules(root: Path) -> dict[str, Module]:
    """Every module of the four packages, without migrations."""
    found = {}
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if "migrations" not in parts:
            name = ".".join(parts).removesuffix(".__init__")
            found[name] = Module(name, path)
    return found


def imports(module: Module, known: Mapping[str, Module]) -> Iterator[tuple[int, str]]:
    """Each import with its line number, wherever it stands: in functions and under TYPE_CHECKING too."""
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    for node in ast.walk(ast.parse(module.path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in known or not is_ours(base) else base


def _base(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def is_ours(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES


def violations(root: Path) -> list[str]:
    known = modules(root)
    found = [f"{name}: no module is named {'/'.join(sorted(FORBIDDEN_NAMES))}" for name in known if misnamed(name)]
    for module in known.values():
        for line, target in imports(module, known):
            if reason := forbidden(module, target):
                found.append(f"{module.path.relative_to(root)}:{line}: {module.name} imports {target}: {reason}")
    return list(dict.fromkeys(found))


def misnamed(name: str) -> bool:
    return not FORBIDDEN_NAMES.isdisjoint(name.split("."))


def forbidden(module: Module, target: str) -> str | None:
    """Why this module may not import the target; None if it may."""
    parts = target.split(".")
    if parts[0] == "django" and ("signals" in parts or "dispatch" in parts):
        return "no Django signals: call the function by its name"
    if not is_ours(target) or part_of(target) == module.part:
        return None
    if part_of(target) == COMPOSITION_ROOT and module.part != COMPOSITION_ROOT:
        return "nobody imports the composition root"
    if any(within(target, part) for part in MAY_IMPORT[module.part]):
        return None
    return f"{module.part} may not import {part_of(target)}"


def cycles(root: Path) -> list[str]:
    """The first import cycle, if there is one."""
    known = modules(root)
    graph = {name: {t for _, t in imports(m, known) if t in known and t != name} for name, m in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"import cycle: {' <- '.join(error.args[1])}"]
    return []


def test_the_import_rules_hold():
    assert violations(ROOT) == []
    assert cycles(ROOT) == []


def test_every_part_of_the_table_exists():
    names = modules(ROOT)
    assert {part for part in MAY_IMPORT if part not in names} == set()
    assert {part_of(name) for name in names} == set(MAY_IMPORT)


# Synthetic trees: the proof that each rule can fail


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


def project_with(name: str, source: str) -> dict[str, str]:
    """A small project that keeps all rules, and one module in question."""
    valid = {
        "voicecare/core/errors.py": "",
        "voicecare/audio/formats.py": "",
        "voicecare/asgi.py": "from voicecare.routing import routes\n",
        "voicecare/routing.py": "from tts.consumers import DeviceConsumer\n",
        "voicecare/patients/models.py": "from voicecare.core.errors import VoicecareError\n",
        "voicecare/providers/elevenlabs/client.py": "from voicecare.core import errors\n",
        "voicecare/providers/espeak/client.py": "from voicecare.audio.formats import FORMATS\n",
        "tts/states.py": "",
        "tts/models.py": "from voicecare.patients.models import Patient\nfrom tts.states import Source\n",
        "tts/text/stream.py": "",
        "tts/synthesis/pipeline.py": "from tts.models import Utterance\nfrom usage.ledger import events\n",
        "tts/devices/player.py": "from tts.synthesis.pipeline import speak\n",
        "tts/protocol/session.py": "from tts.states import Source\n",
        "tts/resilience/retry_policy.py": "",
        "tts/consumers.py": "from tts.devices import player\n",
        "tts/api/streaming.py": "from tts.synthesis import pipeline\n",
        "tts/migrations/0001_initial.py": "import voicecare.urls\n",
        "usage/models.py": "",
        "usage/ledger/events.py": "from usage.models import UsageEvent\n",
        "usage/reports/queries.py": "",
        "usage/alerts/incidents.py": "",
        "usage/admin.py": "",
        "cloning/models.py": "",
        "cloning/jobs/runner.py": "from usage.alerts import incidents\n",
        "voicecare/urls.py": "from tts.synthesis import pipeline\n",
    }
    return {**valid, name: source}


BROKEN = [
    ("voicecare/core/errors.py", "import voicecare.audio.formats", "voicecare.core may not import voicecare.audio"),
    ("voicecare/audio/formats.py", "from voicecare.providers import espeak", "may not import voicecare.providers"),
    ("voicecare/audio/formats.py", "from tts.models import Clip", "voicecare.audio may not import tts.models"),
    ("voicecare/providers/elevenlabs/client.py", "from voicecare.patients import models", "import voicecare.patients"),
    ("voicecare/patients/models.py", "import voicecare.providers.elevenlabs.client", "import voicecare.providers"),
    ("voicecare/patients/models.py", "from usage.ledger.events import book", "may not import usage.ledger"),
    ("usage/ledger/events.py", "from tts import models", "usage.ledger may not import tts.models"),
    ("usage/ledger/events.py", "from usage.reports import queries", "usage.ledger may not import usage.reports"),
    ("usage/models.py", "import cloning.models", "usage.models may not import cloning.models"),
    ("tts/synthesis/pipeline.py", "from usage.reports.queries import daily", "may not import usage.reports"),
    ("tts/synthesis/pipeline.py", "from usage.models import UsageEvent", "may not import usage.models"),
    ("tts/synthesis/pipeline.py", "from cloning.jobs.runner import run", "may not import cloning.jobs"),
    ("tts/resilience/retry_policy.py", "from tts.synthesis import pipeline", "may not import tts.synthesis"),
    ("tts/protocol/session.py", "from tts.resilience import retry_policy", "may not import tts.resilience"),
    ("tts/protocol/session.py", "from voicecare.patients.models import Patient", "may not import voicecare.patients"),
    ("tts/text/stream.py", "from tts.states import Source", "tts.text may not import tts.states"),
    ("tts/api/streaming.py", "from tts.devices import player", "tts.api may not import tts.devices"),
    ("cloning/jobs/runner.py", "from tts.synthesis.pipeline import speak", "may not import tts.synthesis"),
    ("cloning/jobs/runner.py", "from usage.ledger import events", "cloning.jobs may not import usage.ledger"),
    ("tts/synthesis/pipeline.py", "from voicecare import routing", "nobody imports the composition root"),
    ("tts/synthesis/pipeline.py", "import voicecare.celery", "nobody imports the composition root"),
    ("tts/models.py", "from tts.synthesis import pipeline", "tts.models may not import tts.synthesis"),
    ("tts/models.py", "from .consumers import DeviceConsumer", "tts.models may not import tts"),
    ("tts/synthesis/pipeline.py", "def late():\n    from tts import consumers", "may not import tts"),
    ("tts/text/stream.py", "if TYPE_CHECKING:\n    from tts.consumers import View", "tts.text may not import tts"),
    ("usage/ledger/events.py", "from usage.admin import Admin", "usage.ledger may not import usage"),
    ("tts/consumers.py", "from django.db.models.signals import post_save", "no Django signals"),
    ("tts/consumers.py", "from django.db.models import signals", "no Django signals"),
    ("tts/consumers.py", "from django.dispatch import receiver", "no Django signals"),
    ("voicecare/urls.py", "import django.core.signals", "no Django signals"),
    ("tts/utils.py", "", "no module is named"),
    ("cloning/helpers.py", "", "no module is named"),
    ("voicecare/patients/services/__init__.py", "", "no module is named"),
]


@pytest.mark.parametrize(("name", "source", "reason"), BROKEN, ids=[f"{name}: {source}" for name, source, _ in BROKEN])
def test_a_broken_rule_is_named(tmp_path: Path, name: str, source: str, reason: str):
    found = violations(tree(tmp_path, project_with(name, source)))
    assert len(found) == 1
    assert reason in found[0]
    assert found[0].startswith((name, name.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")))


def test_a_cycle_is_named_even_if_only_for_type_checking(tmp_path: Path):
    files = project_with("tts/devices/output.py", "if TYPE_CHECKING:\n    from tts.devices.player import Player\n")
    files["tts/devices/player.py"] = "from tts.devices.output import Output\n"
    assert violations(tree(tmp_path, files)) == []
    found = cycles(tmp_path)
    assert len(found) == 1
    assert found[0].startswith("import cycle: ")
    assert "tts.devices.output" in found[0]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("tts/consumers.py", "from tts.devices import player\nfrom voicecare.patients.models import Patient"),
        ("tts/urls.py", "from tts import consumers"),
        (
            "tts/synthesis/pipeline.py",
            "from voicecare.core import errors\nfrom usage.alerts import incidents\nimport ast",
        ),
        ("cloning/tasks.py", "from cloning.jobs.runner import run\nfrom celery import signals"),
        ("voicecare/health/probes.py", "from tts.consumers import DeviceConsumer\nfrom voicecare import routing"),
        ("voicecare/patients/models.py", "from django.conf import settings\nimport hashlib"),
    ],
)
def test_allowed_imports_are_no_violation(tmp_path: Path, name: str, source: str):
    assert violations(tree(tmp_path, project_with(name, source))) == []
    assert cycles(tmp_path) == []
