# syntax=docker/dockerfile:1
#
# weir's image: one static binary, the certificate authorities it trusts, and nothing else: no shell, no package, no root.
#
#   docker build -t ghcr.io/weir-dev/weir:0.1.0 .
#
# For a release, both architectures, with what is in it (SBOM) and how it was made (provenance), then signed. Either is built
# from either; only on a machine of its own is it guided by a profile (scripts/pgo.sh), so give buildx a builder of each:
#
#   docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=mode=max \
#     --build-arg BUILD_REVISION="$(git rev-parse HEAD)" -t ghcr.io/weir-dev/weir:0.1.0 --push .
#   cosign sign ghcr.io/weir-dev/weir@sha256:…
#
# Put a digest after the tag of the base image with Renovate ("extends": ["docker:pinDigests"]), which then keeps it up to date.

FROM --platform=$BUILDPLATFORM rust:1.95.0-slim-bookworm AS build

# musl-gcc builds for this machine; Zig brings the C compiler and the musl of the other architecture: no emulation, no cross
# compiler of each distribution.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates musl-tools python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/zig \
 && /opt/zig/bin/pip install --no-cache-dir --disable-pip-version-check cargo-zigbuild==0.24.0 ziglang==0.17.1
ENV PATH=/opt/zig/bin:$PATH

WORKDIR /src
ARG TARGETARCH
RUN case "$TARGETARCH" in \
      amd64) echo x86_64-unknown-linux-musl ;; \
      arm64) echo aarch64-unknown-linux-musl ;; \
      *) echo "weir is not built for $TARGETARCH: amd64 and arm64" >&2; exit 1 ;; \
    esac > /target \
 && rustup target add "$(cat /target)"

# What lies in the image beside the binary.
RUN mkdir -p /image/etc/ssl/certs /image/licenses /image/var/lib /state \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && echo 'weir:x:65532:65532::/nonexistent:/nonexistent' > /image/etc/passwd

COPY . .
ARG BUILD_REVISION
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    scripts/pgo.sh "$(cat /target)" \
 && cp target/shipped/weir /image/weir \
 && cp LICENSE NOTICE /image/licenses/

FROM scratch
ARG BUILD_REVISION
LABEL org.opencontainers.image.title="weir" \
      org.opencontainers.image.description="A sidecar that proxies, caches, limits, prices and measures an app's LLM calls" \
      org.opencontainers.image.source="https://github.com/weir-dev/weir" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$BUILD_REVISION"
COPY --from=build /image /
# A new volume that is mounted here takes over whose the directory is.
COPY --from=build --chown=65532:65532 /state /var/lib/weir
# By number: what runs the image can tell that this is not root.
# Its allocator would take memory in huge pages otherwise: 37 MiB of them when idle, in place of 15.
ENV MIMALLOC_ARENA_EAGER_COMMIT=0
USER 65532:65532
# Metrics and health. The app's port, 9347, stays on loopback.
EXPOSE 9348
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/weir", "health"]
ENTRYPOINT ["/weir"]
