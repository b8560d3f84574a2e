"""Explains every statement of the block and finds those that read a whole table.

with Explained() as explained:
    page()
assert explained.problems == []
"""

import json
from collections.abc import Callable, Collection, Iterator
from functools import cache
from types import TracebackType
from typing import Any, Self

from django.db import connections
from django.db.backends.signals import connection_created

GROWING_TABLES = {
    "conversations",
    "tts_utterance",
    "usage_usageevent",
    "usage_dailyusage",
    "usage_budgetmonth",
    "usage_incident",
    "cloning_clonejob",
    "audit_auditentry",
}
"""The tables that grow with time. Patients, devices, voices, phrases and cached audio grow with the house. There is one
reconciliation a day.
"""
MAX_SHARE_READ = 0.15  # of the rows of a table; the tests have ten years, and the longest period of a page is one year

Node = dict[str, Any]


class Explained:
    """Watches all connections of this process that are open or are opened in the block. `problems` describes each
    statement that reads too much. `count` is the number of explained statements.
    """

    def __init__(self, tables: Collection[str] = GROWING_TABLES) -> None:
        self._tables = tables
        self.problems: list[str] = []
        self.count = 0

    def __enter__(self) -> Self:
        connection_created.connect(self._watch_new)
        self._watched = list(connections.all(initialized_only=True))
        for connection in self._watched:
            connection.execute_wrappers.append(self._explain)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection_created.disconnect(self._watch_new)
        for connection in self._watched:
            connection.execute_wrappers.remove(self._explain)

    def _watch_new(self, connection: Any, **_: object) -> None:
        connection.execute_wrappers.append(self._explain)
        self._watched.append(connection)

    def _explain(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        """Run the statement with EXPLAIN, roll it back, and then run it."""
        if sql.startswith(("SELECT", "UPDATE", "DELETE", "WITH")) and any(table in sql for table in self._tables):
            raw = context["connection"].connection
            with raw.transaction(force_rollback=True), raw.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
                plan = cursor.fetchone()[0]
                (result,) = json.loads(plan) if isinstance(plan, str) else plan
                self.count += 1
                found = [problem for node in _nodes(result["Plan"]) if (problem := self._problem(cursor, node))]
            if found:
                self.problems.append(f"{'; '.join(found)}: {sql}")
        return execute(sql, params, many, context)

    def _problem(self, cursor: Any, node: Node) -> str | None:
        """What is wrong with the node, or None if it is no scan of a watched table or reads little of it."""
        table = node.get("Relation Name")
        if table not in self._tables or "Scan" not in node["Node Type"]:
            return None
        if node["Node Type"] == "Seq Scan":
            return f"reads all of {table}"
        removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        read = (node["Actual Rows"] + removed) * node["Actual Loops"]
        share = read / _row_count(cursor.connection, table)
        return f"reads {share:.0%} of {table}" if share > MAX_SHARE_READ else None


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


@cache
def _row_count(connection: Any, table: str) -> int:
    return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
