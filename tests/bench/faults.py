"""How long a fault is heard: from the provider's failure to the next sound, through the sandbox on a real socket.

Both clocks are CLOCK_MONOTONIC, so the sandbox's record and the device's can be compared.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from statistics import median

from tests.bench.processes import Child, Rig, seeded
from tests.bench.report import table
from tests.sandbox import SandboxProcess
from tts.devices.client import DeviceClient, Spoken

DOWN = {"kind": "error", "preset": "service_unavailable", "match": {"path": "."}}
SILENT = {"kind": "stall_first", "match": {"path": "."}}
CLOSE_S = 8.0  # a probe closes the circuit within a second or two

Sample = Callable[[DeviceClient, SandboxProcess, Child], Awaitable[float]]


async def measure(rig: Rig, rounds: int) -> str:
    """Rows of median and worst milliseconds."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(SandboxProcess(None, "--first-byte-ms", "0"))
        # A database of its own: the rig's other server would probe another provider for both.
        env = {"ELEVENLABS_BASE_URL": sandbox.url, "VOICECARE_DATA_DIR": str(rig.folder / "faults")}
        (token,) = seeded(1, rig.known["ours"].env | env)
        ours = stack.enter_context(rig.start("ours", **env))
        rows = [[title, *await _row(token, sandbox, ours, sample, rounds)] for title, sample in SAMPLES.items()]
    return table(("fault", "median ms", "worst ms"), rows)


async def _row(token: str, sandbox: SandboxProcess, ours: Child, sample: Sample, rounds: int) -> list[str]:
    address = ours.url.replace("http", "ws", 1) + "/ws/device/"
    taken = []
    for _ in range(rounds):
        async with DeviceClient(address, token) as device:
            await device.start(greeting=False)
            await device.speak("A first sentence warms up whatever can be warm.")
            sandbox.reset()
            sandbox.settings(first_byte_ms=0)
            taken.append(await sample(device, sandbox, ours) * 1000)
        sandbox.clear_faults()
        _until_closed(ours)
    return [f"{median(taken):.1f}", f"{max(taken):.1f}"]


async def retry(device: DeviceClient, sandbox: SandboxProcess, ours: Child) -> float:
    """From the first request's arrival to the second's: the error was answered at once."""
    sandbox.fault(kind="error", preset="service_unavailable", first=1)
    await device.speak("This sentence fails once and is asked for again.")
    first, second = sandbox.requests()
    return second["at"] - first["at"]


async def backup(device: DeviceClient, sandbox: SandboxProcess, ours: Child) -> float:
    """From the second failing request's arrival to the backup voice's first sound."""
    sandbox.fault(kind="error", preset="service_unavailable", first=2)
    spoken = await device.speak("This sentence fails twice and is spoken by another voice.")
    return _first_audio_at(spoken) - sandbox.requests()[1]["at"]


async def silent(device: DeviceClient, sandbox: SandboxProcess, ours: Child) -> float:
    """From the text to the first sound, of a provider that accepts and never answers."""
    sandbox.fault(**SILENT)
    spoken = await device.speak("Nobody answers this sentence, so this server speaks it.")
    return _first_audio_at(spoken) - (spoken.asked_at or 0)


async def circuit_open(device: DeviceClient, sandbox: SandboxProcess, ours: Child) -> float:
    """From the text to the first sound, with the circuit open."""
    sandbox.fault(**DOWN)
    await device.speak("This sentence opens the circuit.")
    spoken = await device.speak("And this one does not wait for anybody any more.")
    return _first_audio_at(spoken) - (spoken.asked_at or 0)


SAMPLES: dict[str, Sample] = {
    "one error: the retry is at the provider after": retry,
    "two errors: the backup voice is heard after the second": backup,
    "the circuit is open: the offline voice is heard after": circuit_open,
    "a provider that never answers: dead air": silent,
}


def _first_audio_at(spoken: Spoken) -> float:
    if spoken.first_audio_at is None:
        raise RuntimeError(f"nothing was heard: {spoken.frames}")
    return spoken.first_audio_at


def _until_closed(ours: Child) -> None:
    deadline = time.monotonic() + CLOSE_S
    while b"voicecare_circuit_open 1.0" in ours.get("/metrics") and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.2)  # the row is looked at every second
