"""The shared parts of all REST endpoints.

Public modules: `authentication` (bearer tokens), `login`, `errors` (one format
for the body of every error), `middleware`, `pagination`, `parsers`, `ranges` (audio with byte ranges) and `schema`
(OpenAPI). The endpoints themselves are in the `api` package or module of each app. This package imports
`voicecare.core` and `voicecare.accounts` only.
"""
