# PostgreSQL with rebate and pg_cron, both preloaded: see docker/README.md.
#   docker build -t rebate .
#   docker build -t rebate:17 --build-arg PG_MAJOR=17 .
ARG PG_MAJOR=15

FROM postgres:${PG_MAJOR}-bookworm AS build
# PG_MAJOR is set by the base image from here on.
RUN apt-get update \
	&& apt-get install -y --no-install-recommends gcc libc6-dev libpq-dev make "postgresql-server-dev-$PG_MAJOR" \
	&& rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Makefile rebate.control ./
COPY extension extension
COPY client client
RUN make \
	&& make install DESTDIR=/out \
	&& make client \
	&& make install-client DESTDIR=/out

FROM postgres:${PG_MAJOR}-bookworm
RUN apt-get update \
	&& apt-get install -y --no-install-recommends "postgresql-$PG_MAJOR-cron" \
	&& rm -rf /var/lib/apt/lists/*
COPY --from=build /out/ /
COPY docker/rebate.sh /docker-entrypoint-initdb.d/50-rebate.sh
COPY test/demo/seed.sql /usr/local/share/rebate/seed.sql
# pg_cron runs its jobs in one database. To name it otherwise, set POSTGRES_DB and give the command with that name.
ENV POSTGRES_DB=shop
CMD ["postgres", "-c", "shared_preload_libraries=rebate,pg_cron", "-c", "cron.database_name=shop", \
	"-c", "cron.use_background_workers=on", "-c", "max_worker_processes=16"]
