"""The state of the imitated account: credits, voices, models, concurrency and the synthesizer."""
