"""Outage tests: two web processes on their own PostgreSQL and Redis. The tests stop, empty and kill these servers."""
