"""Django's backend for PostgreSQL, with sessions that the server ends when their client is gone.

A machine that dies, or whose network fails, closes no connection. By default PostgreSQL would keep its sessions for
more than two hours: they count against `max_connections`, and one that was in a transaction keeps its locks. The
recorders of all other processes would wait for these locks, and conversations could not be resumed.

These are settings of the session, so nobody has to configure the server, whose defaults stay as they are for other
clients. They are not startup parameters, because pgbouncer refuses these. Behind pgbouncer they may reach only some
of its sessions, so it has to be configured itself (docs/operation.md).
"""

from django.db.backends.postgresql import base

SESSION_SETTINGS = {
    "tcp_keepalives_idle": "5",  # s; with the next two lines, a client that does not answer for 15 s is gone
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "15000",  # ms; the same for a client that does not take a result
    "idle_in_transaction_session_timeout": "60000",  # ms; for a client that answers, but is suspended
}
_SET = f"SELECT {', '.join(['set_config(%s, %s, false)'] * len(SESSION_SETTINGS))}"
_PARAMETERS = [part for setting in SESSION_SETTINGS.items() for part in setting]


class DatabaseWrapper(base.DatabaseWrapper):
    def init_connection_state(self) -> None:
        super().init_connection_state()
        with self.connection.cursor() as cursor:
            cursor.execute(_SET, _PARAMETERS)
