"""Shows the times of the admin in USAGE_TIME_ZONE, in which its days are, too. Those of the REST API are in UTC."""

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin

PREFIX = "/admin/"


class AdminTimeZoneMiddleware(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> None:
        if request.path_info.startswith(PREFIX):
            timezone.activate(settings.USAGE_TIME_ZONE)
        else:
            timezone.deactivate()  # the thread may have served an admin page before
