"""The Prometheus metrics of this project. Labels never contain names, texts, tokens or ids."""

from prometheus_client import Counter, Gauge, Histogram

FIRST_CHUNK_SECONDS = Histogram(
    "voicecare_first_chunk_seconds",
    "Time from the start of a speech to its first audio frame.",
    ["source"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10),
)
SPEECHES = Counter("voicecare_speeches", "Ended speeches.", ["outcome"])
PROVIDER_ERRORS = Counter("voicecare_provider_errors", "Failed provider requests.", ["error", "rung"])
HEDGES = Counter("voicecare_hedges", "Second requests for speech whose first one brought no audio in time.", ["result"])
PROVIDER_CHARACTERS = Counter("voicecare_provider_characters", "Characters of answered provider requests.")
CIRCUIT_OPEN = Gauge("voicecare_circuit_open", "1 while the circuit breaker is open.")
QUOTA_SPENT = Gauge("voicecare_quota_spent", "1 while the provider's quota is exhausted.")
ALERTS_FAILED = Counter("voicecare_alerts_failed", "Failed attempts to send an alert. They are retried.", ["way"])
DEVICES_CONNECTED = Gauge("voicecare_devices_connected", "Connected devices of this process.")
HANDSHAKES_REFUSED = Counter("voicecare_handshakes_refused", "Refused handshakes of devices.", ["reason"])
TASKS = Gauge("voicecare_tasks", "Tasks of the event loop. Without devices their number is constant.")
HELD_BYTES = Gauge("voicecare_held_bytes", "Bytes that are buffered for devices.")
RECORDER_BACKLOG = Gauge("voicecare_recorder_backlog", "Rows that are waiting to be written.")
RECORDER_REFUSED = Counter("voicecare_recorder_refused", "Rows that the database rejected.")
PHRASE_LOOKUPS = Counter(
    "voicecare_phrase_lookups", "Lookups in the phrase cache, by result: memory, store or miss.", ["answer"]
)
PHRASE_STORE_ERRORS = Counter("voicecare_phrase_store_errors", "Failed operations of the phrase store.", ["work"])
SLOTS_HELD = Gauge("voicecare_slots_held", "Provider slots that this process holds.")
SLOTS_WAITING = Gauge("voicecare_slots_waiting", "Requests of this process that are waiting for a provider slot.")
SLOTS_LIMIT = Gauge("voicecare_slots_limit", "Concurrency limit of the provider. 0 if unknown.")
SLOTS_UNLIMITED = Counter("voicecare_slots_unlimited", "Requests sent without a slot because Redis did not answer.")
HINTS_LOST = Counter(
    "voicecare_hints_lost", "Pub/sub messages that Redis did not accept. A periodic sweep does their work."
)
