"""The Django admin of this project.

Public names: `site.VoicecareAdminSite`, whose first page is the dashboard, `readonly.ReadOnlyAdmin` for other apps, and
`login`, `locale` and `context_processors`, which the settings name. `readonly` imports nothing of this project. The
rest belongs to the composition root and may import everything.
"""
