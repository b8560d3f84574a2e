"""Infrastructure that every app uses: errors, metrics, database access from the event loop, the task queue and pub/sub.

Public modules: `errors`, `metrics`, `database`, `task_queue` with `task_names`, and `pubsub`. Imports no other package
of this project.
"""
