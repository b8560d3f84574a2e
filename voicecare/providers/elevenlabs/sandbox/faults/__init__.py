"""Faults, with which the sandbox imitates failures of the provider.

`faults` describes faults and finds the one for a request, `injection` changes the body of a response, and `response`
sends a response and breaks its connection.
"""
