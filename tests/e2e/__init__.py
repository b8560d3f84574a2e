"""End-to-end tests over real sockets. daphne, the database and the provider run in their own processes."""
