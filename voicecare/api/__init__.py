"""The shared parts of all REST endpoints.

Public modules: `authentication` (bearer tokens), `login`, `throttling`, `errors` (one body for every error),
`middleware`, `pagination`, `parsers`, `ranges` (audio with byte ranges) and `schema` (OpenAPI). The endpoints are in
the `api` package or module of each app. Imports `voicecare.core` only.
"""
