"""The names of everything measured. No label ever holds a patient's name, a text, a token or an id."""

from prometheus_client import Counter, Gauge, Histogram

FIRST_CHUNK_SECONDS = Histogram(
    "voicecare_first_chunk_seconds",
    "From the time a speech's turn came to its first audio frame handed over.",
    ["source"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10),
)
SPEECHES = Counter("voicecare_speeches", "Speeches that have ended.", ["outcome"])
PROVIDER_ERRORS = Counter("voicecare_provider_errors", "Failed provider requests.", ["error", "rung"])
PROVIDER_CHARACTERS = Counter("voicecare_provider_characters", "Characters that the provider was sent and answered.")
CIRCUIT_OPEN = Gauge("voicecare_circuit_open", "1 while the provider is known to be down.")
DEVICES_CONNECTED = Gauge("voicecare_devices_connected", "Live device sockets in this process.")
HELD_BYTES = Gauge("voicecare_held_bytes", "Sent to devices and not yet taken by them.")
RECORDER_BACKLOG = Gauge("voicecare_recorder_backlog", "Rows that wait to be written.")
RECORDER_REFUSED = Counter("voicecare_recorder_refused", "Rows that the database refused.")
