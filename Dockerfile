# syntax=docker/dockerfile:1
# Build: docker build -t cloakroom .        Run: see docker-compose.yml, or
#   docker run --read-only -v cloakroom:/var/lib/cloakroom -v ./password:/run/secrets/password:ro \
#     -e CLOAKROOM_PASSWORD_FILE=/run/secrets/password -p 127.0.0.1:6379:6379 cloakroom
# Without a password, protected mode refuses everything that comes from outside the container.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
# Registry and compiled dependencies stay in the builder's cache, so a change of our own code compiles only that.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin cloakroom \
    && install -D -m 0755 target/release/cloakroom /out/usr/local/bin/cloakroom \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ca-certificates.crt \
    && install -D -m 0644 config/cloakroom.toml /out/etc/cloakroom/cloakroom.toml \
    && install -d -m 0700 -o 10001 -g 10001 /out/var/lib/cloakroom

FROM debian:bookworm-slim
COPY --from=build /out/ /
USER 10001:10001
# In a container, others reach it only by its outer address.
ENV CLOAKROOM_LISTEN=0.0.0.0:6379 \
    CLOAKROOM_METRICS_LISTEN=0.0.0.0:9380 \
    STATE_DIRECTORY=/var/lib/cloakroom
VOLUME /var/lib/cloakroom
EXPOSE 6379 9380
STOPSIGNAL SIGTERM
# The image has no HTTP client; bash is one.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9380 && printf 'GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ code _ <&3 && [ \"$code\" = 200 ]"]
ENTRYPOINT ["/usr/local/bin/cloakroom"]
