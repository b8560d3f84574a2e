"""The audible gap of each fault: from the provider's failure to the next audio, with the sandbox and a real socket.

Both clocks are CLOCK_MONOTONIC, so the sandbox's record and the device's can be compared.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from statistics import median

from tests.bench.processes import Child, Rig, seeded
from tests.bench.report import table
from tests.sandbox import SandboxProcess
from voicecare_client import DeviceClient, SpeechResult

DOWN = {"kind": "error", "preset": "service_unavailable", "match": {"path": "."}}
SILENT = {"kind": "stall_first", "match": {"path": "."}}
CLOSE_S = 8.0  # a probe closes the circuit within a second or two

Sample = Callable[[DeviceClient, SandboxProcess, Child], Awaitable[float]]


async def measure(rig: Rig, rounds: int) -> str:
    """Return a table with the median and the worst time of each fault in milliseconds."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(SandboxProcess(None, "--first-byte-ms", "0"))
        # This server has its own database: the rig's other server would probe another provider for both.
        env = {"ELEVENLABS_BASE_URL": sandbox.url, "VOICECARE_DATA_DIR": str(rig.folder / "faults")}
        (token,) = seeded(1, rig.known["ours"].env | env)
        ours = stack.enter_context(rig.start("ours", **env))
        rows = [[title, *await _row(token, sandbox, ours, sample, rounds)] for title, sample in SAMPLES.items()]
    return table(("fault", "median ms", "worst ms"), rows)


async def _row(token: str, sandbox: SandboxProcess, ours: Child, sample: Sample, rounds: int) -> list[str]:
    address = ours.url.replace("http", "ws", 1) + "/ws/device/"
    seconds = []
    for _ in range(rounds):
        async with DeviceClient(address, token) as device:
            await device.start(greeting=False)
            await device.speak("A first sentence warms up whatever can be warm.")
            sandbox.reset()
            sandbox.settings(first_byte_ms=0)
            seconds.append(await sample(device, sandbox, ours) * 1000)
        sandbox.clear_faults()
        _until_closed(ours)
    return [f"{median(seconds):.1f}", f"{max(seconds):.1f}"]


async def retry(device: DeviceClient, sandbox: SandboxProcess, ours: Child) -> float:
    """Seconds from the arrival of the first request to that of the second. The error was sent immediately."""
    sandbox.fault(kind="error", preset="service_unavailable", first=1)
    await device.speak("This sentence fails once and is asked for again.")
    first, second = sandbox.requests()
    return second["at"] - first["at"]


async def backup(device: DeviceClient, sandbox: SandboxProcess, ours: Child) -> float:
    """Seconds from the arrival of the second failing request to the first audio of the backup voice."""
    sandbox.fault(kind="error", preset="service_unavailable", first=2)
    spoken = await device.speak("This sentence fails twice and is spoken by another voice.")
    return _first_audio_at(spoken) - sandbox.requests()[1]["at"]


async def silent(device: DeviceClient, sandbox: SandboxProcess, ours: Child) -> float:
    """Seconds from the text to the first audio, with a provider that accepts requests and never answers."""
    sandbox.fault(**SILENT)
    spoken = await device.speak("Nobody answers this sentence, so this server speaks it.")
    return _first_audio_at(spoken) - (spoken.requested_at or 0)


async def circuit_open(device: DeviceClient, sandbox: SandboxProcess, ours: Child) -> float:
    """Seconds from the text to the first audio, with an open circuit."""
    sandbox.fault(**DOWN)
    await device.speak("This sentence opens the circuit.")
    spoken = await device.speak("And this one does not wait for anybody any more.")
    return _first_audio_at(spoken) - (spoken.requested_at or 0)


SAMPLES: dict[str, Sample] = {
    "one error: the retry is at the provider after": retry,
    "two errors: the backup voice is heard after the second": backup,
    "the circuit is open: the offline voice is heard after": circuit_open,
    "a provider that never answers: dead air": silent,
}


def _first_audio_at(spoken: SpeechResult) -> float:
    if spoken.first_audio_at is None:
        raise RuntimeError(f"nothing was heard: {spoken.frames}")
    return spoken.first_audio_at


def _until_closed(ours: Child) -> None:
    deadline = time.monotonic() + CLOSE_S
    while b"voicecare_circuit_open 1.0" in ours.get("/metrics") and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.2)  # the row is polled every second
