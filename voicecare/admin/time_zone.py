"""Shows the times of the admin and the console in USAGE_TIME_ZONE, as their days. Those of the REST API are in UTC."""

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin

PREFIXES = ("/admin/", "/console/")


class AdminTimeZoneMiddleware(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> None:
        if request.path_info.startswith(PREFIXES):
            timezone.activate(settings.USAGE_TIME_ZONE)
        else:
            timezone.deactivate()  # the thread may have served an admin page before
