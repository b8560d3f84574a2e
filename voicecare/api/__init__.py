"""What the REST API of every app stands on: who asks, one shape of error, pages, bodies, its own description."""
