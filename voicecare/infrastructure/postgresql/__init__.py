"""The database backend for PostgreSQL. `base` is the module that Django looks for."""
