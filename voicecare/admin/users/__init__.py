"""The admin pages of users and groups.

Nobody can give more than they have (`voicecare.accounts.rights`), and the last administrator stays one
(`administrators`).
"""

from voicecare.admin.users import pages

__all__ = ["pages"]
