"""The provider's HTTP endpoints. `middleware` wraps each of them with the API key check and the faults."""
