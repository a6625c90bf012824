"""The environment variables that there are: what a user may set, and what is set for every process. They are read in `settings.py`."""

from __future__ import annotations

from dataclasses import dataclass

# Set before any library is imported: nothing may call home, on any path that starts this platform.
QUIET = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "FEAST_USAGE": "False",
    "GIT_PYTHON_REFRESH": "quiet",
}


# For every process that this platform starts.
STEADY = {
    # torchrun: with a store shared between rounds, processes that start again or come back wait for each other for ever (torch 2.13).
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    # Dagster's events that come together go to its storage as one batch (resources/dagster_instance/together.py).
    "DAGSTER_EVENT_BATCH_SIZE": "10000",
}


@dataclass(frozen=True)
class Variable:
    """An environment variable that a user may set."""

    name: str
    default: str
    meaning: str


# The only ones there are: reading another raises KeyError, and docs/reference/settings.md is made from these.
VARIABLES = {
    variable.name: variable
    for variable in (
        Variable(
            "FALAJ_HOME",
            ".falaj",
            "Folder of all state. Left out, it lies in the checkout, and runs on a provided dataset get one beside it.",
        ),
        Variable("FALAJ_ENV", "laptop", "Set of parts that is bound: laptop, all embedded, or team, on the servers that FALAJ_TEAM names."),
        Variable(
            "FALAJ_TEAM", "infra/team/team.toml", "Settings file of a team's servers, TOML. Left out, the shipped one in the checkout."
        ),
        Variable("FALAJ_DEFS", "platform_assets/defs", "Folder of declarations. Left out, the shipped ones in the checkout."),
        Variable("FALAJ_WEBHOOK_URL", "", "Receiver of notifications, as JSON by POST. Left out, there is no webhook."),
        Variable("FALAJ_WEBHOOK_SECRET_FILE", "", "File with the secret that signs each webhook message (HMAC-SHA-256). Left out, none."),
        Variable("FALAJ_SMTP_HOST", "", "Mail server for notifications: host or host:port. Left out, there is no mail."),
        Variable("FALAJ_SMTP_SECURITY", "starttls", "How mail is handed in: starttls, tls (from the first byte) or none."),
        Variable("FALAJ_SMTP_USER", "", "User at the mail server. Left out, nobody logs in."),
        Variable("FALAJ_SMTP_PASSWORD_FILE", "", "File with that user's password."),
        Variable("FALAJ_MAIL_FROM", "", "Sender of the mails."),
        Variable("FALAJ_MAIL_TO", "", "Receivers of the mails, with commas between."),
        Variable(
            "FALAJ_QUIET_HOURS", "", "Hours in UTC, such as 22:00-06:00, in which only errors are sent; the rest waits until they end."
        ),
        Variable("FALAJ_REMIND_AFTER", "24h", "Time after which what nobody acknowledged is told again, where it still holds."),
        Variable(
            "FALAJ_LEASES",
            "",
            "Table of GPU leases, where several homes or machines share GPUs: sqlite:////absolute/path or postgresql://user@host/database."
            " Left out, SQLite in FALAJ_HOME.",
        ),
        Variable(
            "FALAJ_LEDGER",
            "",
            "Ledger of costs and promises, where several machines share budgets: sqlite:////absolute/path or postgresql://user@host/database."
            " Left out, SQLite in FALAJ_HOME.",
        ),
        Variable(
            "FALAJ_EVENTS",
            "",
            "Queues of events: redis://host:port/db, rediss:// with TLS, or unix://path. Left out, SQLite in FALAJ_HOME.",
        ),
        Variable(
            "FALAJ_SENDERS",
            "",
            "TOML file of those who may send events by signed webhook to the web UI's address, under /events. Left out, nobody may.",
        ),
        Variable(
            "FALAJ_JURISDICTIONS",
            "AE",
            "Whose law holds where data may come to, ISO 3166-1 alpha-2: this machine's and FALAJ_HOME's first, then servers elsewhere"
            " by the variable that names them, such as: AE, FALAJ_EVENTS=AE, FALAJ_WEBHOOK_URL=DE.",
        ),
        Variable(
            "FALAJ_MTLS",
            "off",
            "How services prove to each other who they are: off; local, by certificates of a small authority of this home; or a folder with"
            " tls.crt, tls.key and ca.crt that others write, such as cert-manager.",
        ),
        Variable("FALAJ_SERVE_PORT", "8151", "Port of the inference server on loopback; 0 takes a free one."),
        Variable("FALAJ_SERVE_WORKERS", "1", "Processes of the inference server, one a core; 0 is as many as cores."),
        Variable(
            "FALAJ_SERVE_URL",
            "",
            "Address of an inference server on another machine that serves this home's folder, such as https://rollout:8151."
            " Left out, the one on loopback.",
        ),
        Variable(
            "FALAJ_STEPS", "process", "What executes a run's steps: process, one for all of them, or pods, one of Kubernetes for each."
        ),
        Variable(
            "FALAJ_PROFILE",
            "",
            "Profile of the step that this process executes, in a pod that is tried again with more memory. Left out, the declared one.",
        ),
        Variable("FALAJ_WEB_PORT", "3000", "Port of the web UI on loopback."),
        Variable(
            "FALAJ_WEB_URL", "", "Address under which people reach the web UI, behind a proxy with TLS. Left out, loopback and the port."
        ),
        Variable(
            "FALAJ_OIDC_ISSUER", "", "OIDC issuer that says who somebody is, as its tokens name it. Left out, this home's own issuer."
        ),
        Variable("FALAJ_OIDC_CLIENT_ID", "falaj", "The web UI's client at that issuer; /auth/callback is its redirect."),
        Variable("FALAJ_OIDC_CLIENT_SECRET_FILE", "", "File with that client's secret. Left out, a public client."),
        Variable("FALAJ_OIDC_AUDIENCE", "falaj-gateway", "Audience that a program's token must have for the web UI's API."),
        Variable(
            "FALAJ_OIDC_ROLES", "roles", "Claim with somebody's roles: viewer, operator, approver, admin; dots lead into nested claims."
        ),
        Variable("FALAJ_OIDC_TENANTS", "tenants", "Claim with somebody's tenants; * is all of them."),
        Variable("FALAJ_POLICIES", "infra/policies", "Folder of Cedar policies. Left out, the shipped ones in the checkout."),
        Variable(
            "FALAJ_LOG",
            "",
            "How logs are written: text, for people, or json, a line an event. Left out, json in a pod of Kubernetes and text elsewhere.",
        ),
        Variable("FALAJ_TRACES", "", "Receiver of traces, OTLP over HTTP, such as http://127.0.0.1:4318. Left out, nothing is traced."),
        Variable("FALAJ_TRACES_SHARE", "0.01", "Share of predictions that are traced, of those whose caller has not decided it."),
        Variable("FALAJ_DATA", "", "Folder of real data sets for benchmarks and tests. Left out, what needs them is left out, too."),
    )
}
