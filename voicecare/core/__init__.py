"""Code that every app uses: errors, metrics, database access from the event loop, the task queue and publish/subscribe.

Public modules: `errors`, `languages`, `metrics`, `database`, `batches` (work on many rows), `strict_json`, `task_queue`
with `task_names`, and `pubsub`. This package imports no other package of this project.
"""
