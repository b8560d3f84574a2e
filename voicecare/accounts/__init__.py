"""How users log in, and what they may give to others.

Public modules: `throttling`, which limits failed logins of the REST API and of the admin, `two_factor`, `tokens` of the
REST API, `password_reset`, `oidc` (OpenID Connect), and `rights`. This package imports `voicecare.core` only.
"""
