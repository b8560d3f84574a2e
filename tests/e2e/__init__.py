"""The device road over real sockets: daphne, the database and the provider are processes of their own."""
