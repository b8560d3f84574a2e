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
QUOTA_SPENT = Gauge("voicecare_quota_spent", "1 while the provider's quota is known to be spent.")
ALERTS_FAILED = Counter("voicecare_alerts_failed", "Alerts that could not be sent; they are tried again.", ["way"])
DEVICES_CONNECTED = Gauge("voicecare_devices_connected", "Live device sockets in this process.")
HELD_BYTES = Gauge("voicecare_held_bytes", "Sent to devices and not yet taken by them.")
RECORDER_BACKLOG = Gauge("voicecare_recorder_backlog", "Rows that wait to be written.")
RECORDER_REFUSED = Counter("voicecare_recorder_refused", "Rows that the database refused.")
PHRASE_LOOKUPS = Counter(
    "voicecare_phrase_lookups", "Clips looked up: found in memory, in the store, or not.", ["answer"]
)
PHRASE_STORE_ERRORS = Counter(
    "voicecare_phrase_store_errors", "What the phrase cache could not do, by its work; nobody heard it.", ["work"]
)
SLOTS_HELD = Gauge("voicecare_slots_held", "Provider slots held by this process.")
SLOTS_WAITING = Gauge("voicecare_slots_waiting", "Requests of this process that wait for a provider slot.")
SLOTS_LIMIT = Gauge("voicecare_slots_limit", "Requests that the provider serves at once; 0 while that is unknown.")
SLOTS_UNLIMITED = Counter("voicecare_slots_unlimited", "Requests let go without a slot, because Redis did not answer.")
HINTS_LOST = Counter("voicecare_hints_lost", "Hints that Redis did not take: a sweep finds what they spoke of.")
