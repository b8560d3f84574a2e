"""Notification channels: alerts through Apprise, to the services that administrators have entered in the admin.

`rules` decides which message of an incident a channel must send next. `dispatch` sends all that are due. It uses
`sender`, which starts a child process (`worker`) for each channel. `channel_check` sends test alerts.
"""
