"""Who may import whom: the table of docs/architecture.md, read out of every module's imports.

A rule that is broken is named with the file and the line. The synthetic trees below prove that each rule can fail.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Part by part, nearest prefix first: what it may import of ours beside itself.
LEAVES = {
    *(f"voicecare.{leaf}" for leaf in ("core", "audio", "admin.readonly", "api")),
    *("voicecare.providers.espeak", "voicecare.providers.errors"),
}
BASE = {*LEAVES, "voicecare.providers.elevenlabs", "voicecare.patients"}
MAY_IMPORT: Mapping[str, set[str]] = {
    **{leaf: set() for leaf in LEAVES},
    "voicecare.providers.espeak": {"voicecare.audio"},
    "voicecare.providers.errors": {"voicecare.core"},
    "voicecare.api": {"voicecare.core"},
    "voicecare.providers.elevenlabs": LEAVES,
    "voicecare.patients": LEAVES,
    "usage": BASE,
    "tts": {
        *BASE,
        "usage.provider_state",
        "usage.ledger",
        "usage.alerts",
        "usage.budgets",
    },
    "cloning": {*BASE, "usage.alerts", "usage.provider_state"},
}
APPS = ("tts", "usage", "cloning", "voicecare.patients")
EVERYTHING_OF_OURS = ("voicecare", "tts", "usage", "cloning")  # imports anything and is imported by nobody: the rest
THE_ONE_WAY_IN = ("voicecare", "voicecare.celery")  # Celery wants its application in the package

# Inside an app: models <- domain modules <- edges.
MODELS, DOMAIN, EDGE = range(3)
EDGES = {"api", "serializers", "urls", "consumers", "tasks", "admin", "management", "apps"}
FORBIDDEN_NAMES = {"utils", "helpers", "services"}


@dataclass(frozen=True)
class Module:
    name: str
    path: Path

    @property
    def part(self) -> str | None:
        """The row of the table that this module belongs to; None for the composition root."""
        return part_of(self.name)

    @property
    def app(self) -> str | None:
        return next((app for app in APPS if within(self.name, app)), None)

    @property
    def rank(self) -> int:
        if self.app is None or self.name == self.app:
            return DOMAIN
        inner = self.name.removeprefix(f"{self.app}.").split(".")[0]
        return MODELS if inner == "models" else EDGE if inner in EDGES else DOMAIN


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def part_of(name: str) -> str | None:
    return max((part for part in MAY_IMPORT if within(name, part)), key=len, default=None)


def modules(root: Path) -> dict[str, Module]:
    """Every module of ours but migrations, which Django writes."""
    found = {}
    for path in sorted(path for package in EVERYTHING_OF_OURS for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if "migrations" not in parts:
            name = ".".join(parts).removesuffix(".__init__")
            found[name] = Module(name, path)
    return found


def imports(module: Module, known: Mapping[str, Module]) -> Iterator[tuple[int, str]]:
    """Each import with its line, wherever it stands: in functions and under TYPE_CHECKING too."""
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    for node in ast.walk(ast.parse(module.path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in known or not within_ours(base) else base


def _base(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def within_ours(name: str) -> bool:
    return name.partition(".")[0] in EVERYTHING_OF_OURS


def violations(root: Path) -> list[str]:
    known = modules(root)
    broken = [f"{name}: no module is named {'/'.join(sorted(FORBIDDEN_NAMES))}" for name in known if misnamed(name)]
    for module in known.values():
        for line, target in imports(module, known):
            if reason := trouble(module, target):
                broken.append(f"{module.path.relative_to(root)}:{line}: {module.name} imports {target}: {reason}")
    return list(dict.fromkeys(broken))


def misnamed(name: str) -> bool:
    return not FORBIDDEN_NAMES.isdisjoint(name.split("."))


def trouble(module: Module, target: str) -> str | None:
    """Why this module may not import that one; None if it may."""
    if _signals(target):
        return "no signals: what happens is called by its name"
    if not within_ours(target):
        return None
    imported = Module(target, module.path)
    if module.app is not None and imported.app is not None and module.rank < imported.rank:
        return "models <- domain modules <- api, consumers, tasks, admin, commands: no way back"
    if module.part is None:
        return None if _root_may(module.name, target) else "nobody imports the composition root"
    if imported.part == module.part:
        return None
    if imported.part is None and target != "voicecare":
        return "nobody imports the composition root"
    allowed = MAY_IMPORT[module.part]
    return None if any(within(target, part) for part in allowed) else f"{module.part} may not import {target}"


def _root_may(importer: str, target: str) -> bool:
    """Parts of the composition root know one another; the package itself imports Celery's application alone."""
    return importer != "voicecare" or (importer, target) == THE_ONE_WAY_IN


def _signals(target: str) -> bool:
    parts = target.split(".")
    return parts[0] == "django" and ("signals" in parts or "dispatch" in parts)


def test_the_table_holds():
    assert violations(ROOT) == []


def test_every_part_of_the_table_that_exists_is_read():
    names = modules(ROOT)
    for expected in (
        "tts.protocol.session",
        "usage.ledger.events",
        "voicecare.patients.models",
        "voicecare.providers.elevenlabs.client",
    ):
        assert expected in names
    assert {part_of(name) for name in names} >= {
        "tts",
        "usage",
        "voicecare.patients",
        "voicecare.providers.elevenlabs",
        None,
    }


# The proof that each rule can fail


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


def around(name: str, source: str) -> dict[str, str]:
    """A small project that keeps all rules, and one module that may not."""
    kept = {
        "voicecare/__init__.py": "from voicecare.celery import app\n",
        "voicecare/celery.py": "import celery\n",
        "voicecare/core/errors.py": "",
        "voicecare/audio/formats.py": "",
        "voicecare/providers/espeak/client.py": "from voicecare.audio.formats import FORMATS, Encoder\n",
        "voicecare/routing.py": "from tts.consumers import Consumer\n",
        "voicecare/asgi.py": "from voicecare.routing import routes\n",
        "voicecare/patients/models.py": "from voicecare.core.errors import Error\n",
        "voicecare/providers/elevenlabs/client.py": "from voicecare.core import errors\n",
        "tts/models.py": "from voicecare.patients.models import Patient\n",
        "tts/synthesis/pipeline.py": "from tts.models import Utterance\nfrom usage.ledger import events\n",
        "tts/consumers.py": "from tts.synthesis.pipeline import speak\n",
        "tts/migrations/0001_initial.py": "import voicecare.urls\n",
        "usage/models.py": "",
        "usage/ledger/events.py": "from usage.models import Event\n",
        "usage/reports/queries.py": "",
        "usage/alerts/incidents.py": "",
        "cloning/models.py": "",
        "cloning/jobs/runner.py": "from usage.alerts.incidents import open_incident\n",
        **dict.fromkeys(["tts/api/views.py", "tts/tasks.py", "usage/admin.py", "voicecare/patients/admin.py"], ""),
        **dict.fromkeys(["voicecare/urls.py", "voicecare/health.py", "tts/management/commands/warm.py"], ""),
    }
    return {**kept, name: source}


BROKEN = [
    (
        "voicecare/core/errors.py",
        "import voicecare.audio.formats",
        "voicecare.core may not import voicecare.audio.formats",
    ),
    (
        "voicecare/audio/formats.py",
        "from voicecare.providers import espeak",
        "nobody imports the composition root",
    ),
    (
        "voicecare/audio/formats.py",
        "from tts.models import Utterance",
        "voicecare.audio may not import tts.models",
    ),
    (
        "voicecare/providers/elevenlabs/client.py",
        "from voicecare.patients import models",
        "may not import voicecare.patients",
    ),
    (
        "voicecare/patients/authentication.py",
        "import voicecare.providers.elevenlabs.client",
        "may not import voicecare.providers.elevenlabs.client",
    ),
    (
        "voicecare/patients/authentication.py",
        "from usage.ledger.events import book",
        "may not import usage.ledger.events",
    ),
    ("usage/provider_state/quota.py", "from tts import models", "usage may not import tts.models"),
    ("usage/provider_state/quota.py", "import cloning", "usage may not import cloning"),
    ("tts/outbox/store.py", "from usage.reports.queries import daily", "tts may not import usage.reports.queries"),
    ("tts/outbox/store.py", "from usage.models import Event", "tts may not import usage.models"),
    ("tts/outbox/store.py", "import usage", "tts may not import usage"),
    ("tts/outbox/store.py", "from cloning.jobs.runner import run", "tts may not import cloning.jobs.runner"),
    (
        "cloning/jobs/runner.py",
        "from tts.synthesis.pipeline import speak",
        "cloning may not import tts.synthesis.pipeline",
    ),
    ("cloning/jobs/runner.py", "from usage.ledger import events", "cloning may not import usage.ledger.events"),
    ("tts/synthesis/pipeline.py", "from voicecare import routing", "nobody imports the composition root"),
    ("tts/synthesis/pipeline.py", "import voicecare.celery", "nobody imports the composition root"),
    ("usage/ledger/events.py", "from voicecare.health import readyz", "nobody imports the composition root"),
    ("voicecare/__init__.py", "from voicecare.asgi import application", "nobody imports the composition root"),
    ("tts/models.py", "from tts import speech", "no way back"),
    ("tts/models.py", "from .speech import speak", "no way back"),
    ("tts/synthesis/pipeline.py", "from tts.consumers import Consumer", "no way back"),
    ("tts/synthesis/pipeline.py", "def late():\n    from tts import tasks", "no way back"),
    ("tts/synthesis/pipeline.py", "if TYPE_CHECKING:\n    from tts.api.views import View", "no way back"),
    ("tts/synthesis/pipeline.py", "from tts.management.commands import warm", "no way back"),
    ("usage/ledger/events.py", "from usage.admin import Admin", "no way back"),
    ("tts/synthesis/pipeline.py", "from voicecare.patients.admin import Admin", "no way back"),
    ("tts/apps.py", "from django.db.models.signals import post_save", "no signals"),
    ("tts/apps.py", "from django.db.models import signals", "no signals"),
    ("tts/apps.py", "from django.dispatch import receiver", "no signals"),
    ("voicecare/urls.py", "import django.core.signals", "no signals"),
    ("tts/utils.py", "", "no module is named"),
    ("cloning/helpers.py", "", "no module is named"),
    ("voicecare/patients/services/__init__.py", "", "no module is named"),
]


@pytest.mark.parametrize(("name", "source", "reason"), BROKEN, ids=[f"{name}: {source}" for name, source, _ in BROKEN])
def test_a_broken_rule_is_named(tmp_path: Path, name: str, source: str, reason: str):
    found = violations(tree(tmp_path, around(name, source)))
    assert len(found) == 1
    assert reason in found[0]
    assert found[0].startswith((name, name.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("tts/consumers.py", "from tts import speech, models\nfrom voicecare.patients.models import Patient"),
        ("tts/api/urls.py", "from tts import api"),
        (
            "tts/synthesis/pipeline.py",
            "from voicecare.core import errors\nfrom usage.alerts import incidents\nimport asyncio, signal",
        ),
        ("cloning/tasks.py", "from cloning.jobs.runner import run\nfrom celery import signals"),
        ("voicecare/health.py", "from tts.runtime import runtime\nfrom voicecare import routing"),
        ("voicecare/patients/models.py", "from django.conf import settings\nimport hashlib"),
    ],
)
def test_what_the_table_allows_is_no_violation(tmp_path: Path, name: str, source: str):
    assert violations(tree(tmp_path, around(name, source))) == []
