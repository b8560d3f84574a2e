"""The plans of all queries of periodic tasks and admin pages, on PostgreSQL and on tables with a long history."""
