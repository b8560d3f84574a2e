"""Talking devices and a clinician on one address: what was heard in each phase, and what must hold at the end."""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import quantiles

from tests.chaos.cluster import Cluster, Listener
from tests.chaos.listening import UNWRITTEN_S
from tests.chaos.reconnecting import Clinician, Gap, ReconnectingDevice, Sentence
from tests.chaos.soak import checks
from tests.chaos.soak.checks import Check
from tests.deploy.proxies import NginxProxy
from tests.waiting import eventually

USER = {"username": "ward", "password": "ward-ward-ward"}
ADD_USER = f"from django.contrib.auth.models import User; User.objects.create_superuser(**{USER})"
NORMAL_WAIT_S = 1.0
SETTLED_S, STOP_S = 120.0, 120.0
WRONG_STATES = """SELECT id, state FROM tts_utterance
WHERE 'srv-' || id = ANY(%s) AND state <> 'heard'"""
HEADS = ("phase", "s", "sentences", "waited p50 / p95 / max s", "voices", "repeated", "lost connections", "back max s")
HEADS += ("normal after s",)


@dataclass
class Phase:
    """A part of the run. `over_at` is when the disturbance ended, from which on it takes time to be normal again."""

    name: str
    began_at: float = field(default_factory=time.monotonic)
    over_at: float | None = None
    ended_at: float = 0.0


@dataclass
class Ward:
    devices: list[ReconnectingDevice]
    clinician: Clinician
    phases: list[Phase] = field(default_factory=list)
    killed_at: float | None = None  # when the processes of a host were killed

    @asynccontextmanager
    async def phase(self, name: str, seconds: float = 0) -> AsyncIterator[Phase]:
        """Measure the block. After it, wait until every device has heard a sentence without delay."""
        phase = Phase(name)
        self.phases.append(phase)
        yield phase
        phase.over_at = phase.over_at or time.monotonic()
        await asyncio.sleep(seconds)
        await self._wait_until_normal(phase.over_at)
        phase.ended_at = time.monotonic()

    async def _wait_until_normal(self, since: float) -> None:
        def late() -> int:
            return sum(not any(is_normal(s) and s.asked_at > since for s in d.sentences[-3:]) for d in self.devices)

        await eventually(late, SETTLED_S, wanted=lambda devices: devices == 0)

    def rows(self) -> list[list[str]]:
        return [self._row(phase) for phase in self.phases]

    def _row(self, phase: Phase) -> list[str]:
        def is_inside(at: float) -> bool:
            return phase.began_at <= at < phase.ended_at

        sentences = [s for d in self.devices for s in d.sentences if is_inside(s.asked_at)]
        gaps = [gap for d in self.devices for gap in d.gaps if is_inside(gap.noticed_at)]
        waits = [sentence.waited_s for sentence in sentences]
        p50, p95 = (quantiles(waits, n=20)[place] for place in (9, 18))
        ends = Counter(gap.end for gap in gaps)
        return [
            phase.name,
            f"{phase.ended_at - phase.began_at:.0f}",
            str(len(sentences)),
            f"{p50:.2f} / {p95:.2f} / {max(waits):.2f}",
            ", ".join(f"{count} {source}" for source, count in Counter(s.source for s in sentences).most_common()),
            f"{sum(s.attempts > 1 for s in sentences)}, {sum(s.begun > 1 for s in sentences)} heard twice",
            ", ".join(f"{count} {end}" for end, count in ends.items()) or "0",
            f"{max(map(away_s, gaps)):.1f}" if gaps else "",
            f"{self._normal_after_s(phase, sentences, gaps):.1f}",
        ]

    def _normal_after_s(self, phase: Phase, sentences: Sequence[Sentence], gaps: Sequence[Gap]) -> float:
        late = [s.asked_at + s.waited_s for s in sentences if not is_normal(s)]
        back = [gap.back_at or 0.0 for gap in gaps]
        return max([0.0, *(at - (phase.over_at or 0.0) for at in (*late, *back))])

    def checks(self) -> list[Check]:
        sentences = [sentence for device in self.devices for sentence in device.sentences]
        twice = [s for device in self.devices for s, ends in device.terminals.items() if len(ends) > 1 and _own(s)]
        return [
            Check("sentences", f"{len(sentences):,}", bool(sentences)),
            Check.none("sentences that did not end exactly once", [s for s in sentences if s.finished != 1]),
            Check.none("speeches that ended twice at their device", twice),
            Check("texts queued over REST", f"{self.clinician.accepted:,}", bool(self.clinician.accepted)),
            Check.none("texts never heard", [x for d in self.devices for x in d.expected - d.acknowledged.keys()]),
            Check.none("texts heard again after their ack", [x for d in self.devices for x in d.repeated]),
            Check.none("frames refused", [x for d in self.devices for x in d.refusals.items() if x[0] != "unknown_id"]),
        ]

    def may_be_unwritten(self, at: float) -> bool:
        """Whether a killed process may not have written yet what happened at this time."""
        return self.killed_at is not None and abs(at - self.killed_at) < UNWRITTEN_S

    def facts(self) -> list[list[str]]:
        resumed = sum((device.resumed for device in self.devices), Counter[bool]())
        attempts = Counter(end for device in self.devices for gap in device.gaps for end in gap.attempts)
        return [
            ["conversations resumed / not", f"{resumed[True]} / {resumed[False]}"],
            ["attempts to connect that failed", str(dict(attempts))],
            ["requests over REST that failed", str(dict(self.clinician.failures))],
            ["longest until a text was accepted", f"{self.clinician.longest_s:.1f} s"],
        ]


def is_normal(sentence: Sentence) -> bool:
    return sentence.waited_s < NORMAL_WAIT_S and sentence.attempts == 1 and sentence.source in ("live", "")


def _own(speech: tuple[str, str]) -> bool:
    return not speech[1].startswith("srv-")


def away_s(gap: Gap) -> float:
    return (gap.back_at or time.monotonic()) - gap.last_frame_at


@asynccontextmanager
async def talking(listeners: list[Listener], proxy: NginxProxy) -> AsyncIterator[Ward]:
    """Inside the block all devices talk. After it they have heard everything."""
    tls = ssl.create_default_context(cafile=proxy.ca)
    url = proxy.url.replace("https:", "wss:") + "/ws/device/"
    devices = [ReconnectingDevice(listener, url, tls) for listener in listeners]
    ward = Ward(devices, Clinician(proxy.url, USER, devices, tls))
    queueing = asyncio.create_task(ward.clinician.run())
    tasks = [asyncio.create_task(device.run()) for device in devices]
    try:
        yield ward
        ward.clinician.stopping = True
        await queueing
        for device in devices:
            device.stopping = True
        async with asyncio.timeout(STOP_S):
            await asyncio.gather(*tasks)
    finally:
        for task in (queueing, *tasks):
            task.cancel()
        await asyncio.wait((queueing, *tasks))


def accounts(cluster: Cluster, ward: Ward) -> list[Check]:
    """Compare rows and accounts. All processes have stopped, and journals and unknown attempts were settled."""
    rows = checks.rows_of_devices(cluster)
    ended = {
        speech: ends[0].kind
        for device in ward.devices
        for speech, ends in device.terminals.items()
        if _own(speech) and not ward.may_be_unwritten(ends[0].at)
    }
    expected = [speech for device in ward.devices for speech in device.expected]
    return [
        Check.none("texts in another state than heard", cluster.query(WRONG_STATES, expected)),
        Check.none(
            "speeches with another end in the database",
            [s for s, kind in ended.items() if rows.get(s) not in checks.ROW_STATES[kind]],
        ),
        *checks.totals(cluster),
    ]
