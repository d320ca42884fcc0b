"""Secrets in URLs: they belong in the environment or a file of the client's own, and are never kept by a run.

Services call their secrets whatever they like (`sig`, `apikey`, `X-Amz-Signature`), so what may be kept is listed, not what may not.
"""

from __future__ import annotations

import re

_IN_AUTHORITY = re.compile(r"(?<=://)([^:/@?]*):[^@]*(?=@)")
_KEPT = {
    # pyarrow's file systems
    "scheme", "region", "endpoint_override", "tls_ca_file_path", "allow_bucket_creation", "allow_bucket_deletion",
    "smart_defaults",
    "check_directory_existence_before_creation", "force_virtual_addressing", "project", "retry_limit_seconds",
    "default_bucket_location",
    "blob_storage_authority", "dfs_storage_authority", "blob_storage_scheme", "dfs_storage_scheme", "enable_tls",
    "credential_kind", "tenant_id",
    "client_id", "replication", "buffer_size", "default_block_size",
    # PostgreSQL, MySQL, SQL Server and SQLite, as SQLAlchemy passes it on
    "host", "hostaddr", "port", "user", "username", "dbname", "database", "service", "driver", "sslmode",
    "sslrootcert", "sslcert", "sslkey", "sslnegotiation", "ssl", "ssl_ca",
    "ssl_cert", "ssl_key", "ssl_mode", "channel_binding", "gssencmode", "krbsrvname", "target_session_attrs",
    "load_balance_hosts", "options",
    "application_name", "fallback_application_name", "client_encoding", "connect_timeout", "keepalives",
    "keepalives_idle", "keepalives_interval",
    "keepalives_count", "tcp_user_timeout", "charset", "collation", "use_unicode", "unix_socket", "autocommit",
    "read_timeout", "write_timeout", "encrypt",
    "trustservercertificate", "applicationintent", "mode", "cache", "immutable", "nolock", "psow", "vfs", "uri",
    "timeout", "check_same_thread",
}  # fmt: skip
"""Parameters of a query, in small letters, that hold no secret."""


def without_password(text: str) -> str:
    """A URL, or a text that ends in one, without the passwords in its authority and without parameters that may be secret."""
    before, mark, url = _IN_AUTHORITY.sub(r"\1", text).partition("://")
    address, asks, query = url.partition("?")
    place, _, fragment = address.partition("#")
    if "=" in fragment:
        address = place
    kept = [part for part in query.partition("#")[0].split("&") if part.partition("=")[0].lower() in _KEPT]
    return f"{before}{mark}{address}{asks if kept else ''}{'&'.join(kept)}" if mark else text


def has_password(url: str) -> bool:
    """Whether a URL holds a password, or what may be one."""
    return without_password(url) != url
