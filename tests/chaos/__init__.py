"""Two web processes on a PostgreSQL and a Redis of their own, which the tests stop, empty and kill."""
