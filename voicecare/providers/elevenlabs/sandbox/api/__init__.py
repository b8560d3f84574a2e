"""The HTTP endpoints that the provider has.

`middleware` adds the check of the API key and the faults to each of them.
"""
