# The service on any user id and a read-only root file system. DATABASE_URL and SECRET_KEY, or files with them, are needed.
FROM python:3.13-slim-trixie AS build
WORKDIR /srv/messages
COPY requirements.txt constraints.txt ./
RUN python -m venv dev && dev/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt
COPY . .
RUN python -m compileall -q accounts blocking config messageservice && mkdir dev/static \
    && SECRET_KEY=unused LOG_DIR=- dev/bin/python manage.py collectstatic --no-input --verbosity 0 --ignore redoc --ignore '*.map'

FROM python:3.13-slim-trixie
WORKDIR /srv/messages
COPY --from=build /srv/messages .
ENV PATH=/srv/messages/dev/bin:$PATH HOST=0.0.0.0 PORT=8000 LOG_DIR=-
USER 10001:0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "\
from http.client import HTTPConnection as Connection; import os; \
health = Connection('127.0.0.1', os.environ['PORT'], timeout=4); health.request('GET', '/healthz'); \
exit(health.getresponse().status != 200)"]
# Containers that start at the same time migrate one after the other. The server then takes the shell's place, and gets SIGTERM.
CMD ["sh", "-c", "python manage.py migrate --verbosity 0 && exec python -m config.server"]
