# Carries the compiler's cache of the engine's builds (the cache mount of templates/stages/engine.j2) between builders that do not
# share one. STAMP is new each time: the content of a cache mount is no part of what BuildKit knows a step by.
ARG BASE
FROM ${BASE} AS carry
ARG STAMP
ARG WAY
RUN --mount=type=cache,id=sdrun-ccache,target=/ccache \
    --mount=type=bind,target=/in \
    set -eu; \
    mkdir /out; \
    case "$WAY" in \
        in) cp -a /in/. /ccache/ ;; \
        out) cp -a /ccache/. /out/ ;; \
    esac

FROM scratch
COPY --from=carry /out/ /
