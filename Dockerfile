# One image for web, worker, beat and the sandbox. Its argument is a name in Procfile (web is the default), or any other
# command. Settings are environment variables, see docs/operation.md. It writes to /data and /tmp only.
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
RUN python3 -m venv /opt/venv
COPY requirements.lock /
# pip and setuptools are not needed to run.
RUN /opt/venv/bin/pip install --no-cache-dir --require-hashes -r /requirements.lock && /opt/venv/bin/pip uninstall -y setuptools pip
# A fifth of the size that nothing uses: tests, sources of translations, AWS services other than storage and log-in, and
# symbols for debuggers.
RUN apt-get install -y --no-install-recommends binutils \
    && cd /opt/venv/lib/python3*/site-packages \
    && find . -name '*.po' -delete \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && find twisted autobahn -type d -name test -prune -exec rm -rf {} + \
    && find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name 'sso*' -exec rm -rf {} + \
    && find av -name '*.so' -exec strip --strip-unneeded {} +

FROM debian:12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 ca-certificates \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin voicecare \
    && install -d -o voicecare -g voicecare -m 700 /data
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DEBUG=0 VOICECARE_DATA_DIR=/data
WORKDIR /app
VOLUME /data
EXPOSE 8000
# For web. Containers of worker and beat switch it off: they answer no requests, and /readyz says whether they work.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT') or 8000}/healthz\", timeout=4)"]
ENTRYPOINT ["/app/deploy/run"]
CMD ["web"]
COPY --from=build /opt/venv /opt/venv
COPY . .
# Compiled here, because the file system is read-only later. The key is for this command only.
RUN python -m compileall -q . && SECRET_KEY=build VOICECARE_DATA_DIR=/tmp python manage.py collectstatic --noinput -v 0
USER voicecare
