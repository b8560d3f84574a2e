"""How users log in.

Public modules: `throttling`, which limits failed logins of the REST API and of the admin, and `two_factor`. This
package imports `voicecare.core` only.
"""
