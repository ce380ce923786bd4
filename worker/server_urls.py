"""The URLs of both servers, checked before anything connects.

Owns: which forms of REDIS_URL and DATABASE_URL are understood, and one sentence for each that is not.
Must not know: drivers, what a connection is for.
Invariant: a message never shows a part of a URL that may hold a password; the options that this code relies on are its
own, whatever a URL asks for.
"""

import difflib
import re
from collections.abc import Collection, Iterable
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from worker.errors import SettingsError

_STREAM_SCHEMES = {
    "redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix",
}  # fmt: skip
#: Options of a stream server's URL that are passed on.
_STREAM_OPTIONS = frozenset({"db", "username", "password"})
_TLS_OPTIONS = frozenset(
    {
        "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile",
        "ssl_password",
    }
)  # fmt: skip
#: Options that other programs put there and that ours sets itself; they are left out.
_OVERRIDDEN = frozenset(
    {
        "client_name", "decode_responses", "encoding", "encoding_errors", "health_check_interval", "lib_name",
        "lib_version", "max_connections", "protocol", "retry_on_error", "retry_on_timeout", "socket_connect_timeout",
        "socket_keepalive", "socket_read_size", "socket_timeout", "timeout",
    }
)  # fmt: skip
_TOPOLOGIES = re.compile(r"sentinel|cluster")
#: Parameters of libpq's connection strings, but for those that no application sets.
_REGISTRY_OPTIONS = frozenset(
    {
        "application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname",
        "fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "host", "hostaddr", "keepalives",
        "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname", "load_balance_hosts",
        "max_protocol_version", "min_protocol_version",
        "options", "passfile", "password", "port", "replication", "require_auth", "requirepeer", "service", "sslcert",
        "sslcertmode", "sslcompression", "sslcrl", "sslcrldir", "sslkey", "ssl_max_protocol_version",
        "ssl_min_protocol_version", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni",
        "target_session_attrs", "tcp_user_timeout", "user",
    }
)  # fmt: skip
_LONGEST = 8192
_LARGEST_DATABASE = 2**31 - 1
_MOST_PORTS = 65_535


def stream_url(text: str, name: str = "REDIS_URL") -> str:
    """Return a stream server's URL in the one form that the driver reads as it is meant.

    Args:
        text: `redis`, `rediss`, `valkey`, `valkeys` or `unix` as scheme. A password may hold any character; what is
            percent-encoded is decoded.
        name: Of the setting, for messages.

    Raises:
        SettingsError: It cannot be read, or has an option that nobody knows.
    """
    scheme, rest = _scheme(text, name, "redis://host:6379/0")
    if _TOPOLOGIES.search(scheme):
        raise SettingsError(f"{name} has the scheme {scheme}: name one server, the primary, as redis:// or rediss://")
    if scheme not in _STREAM_SCHEMES:
        raise _unknown_scheme(name, scheme, _STREAM_SCHEMES)
    scheme = _STREAM_SCHEMES[scheme]
    login, address = _login(rest)
    parts = _split(f"{scheme}://{address}", name)
    known = _STREAM_OPTIONS | (_TLS_OPTIONS if scheme == "rediss" else frozenset())
    options = _options(parts, name, known, _OVERRIDDEN | _TLS_OPTIONS)
    if stray := sorted(_TLS_OPTIONS & options.keys() - known):
        raise SettingsError(f"{name} has the option {stray[0]} without TLS: the scheme must be rediss://")
    kept = {option: value for option, value in options.items() if option in known}
    path = parts.path
    if scheme == "unix":
        if not path.strip("/"):
            raise SettingsError(f"{name} has no path: write unix:///path/to/the.sock")
        kept["db"] = _database(kept.pop("db", "0"), name)
        return f"unix://{login}{path}?{urlencode(kept)}"
    _require_address(parts, name, "redis://host:6379/0")
    database = _database(path.strip("/") or kept.get("db", "0"), name)
    if kept.pop("db", database) != database:
        raise SettingsError(f"{name} names two databases: {database} as its path and another as the option db")
    return f"{scheme}://{login}{parts.netloc}/{database}" + (f"?{urlencode(kept)}" if kept else "")


def registry_url(text: str, name: str = "DATABASE_URL") -> str:
    """Return the registry's URL as libpq reads it; a connection string of libpq (`host=… dbname=…`) stays as it is.

    Args:
        text: `postgresql` or `postgres` as scheme, with a driver (`postgresql+psycopg`) or without.
        name: Of the setting, for messages.

    Raises:
        SettingsError: It cannot be read, or has an option that libpq does not know.
    """
    if "://" not in text and re.match(r"\s*[a-z_]+\s*=", text):
        return _plain(text, name, blanks=True)
    scheme, rest = _scheme(text, name, "postgresql://user@host:5432/database")
    if scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        raise _unknown_scheme(name, scheme, ("postgresql", "postgres"))
    login, address = _login(rest)
    # Several hosts, each with its port, are libpq's to read.
    parts = _split(f"postgresql://{address}", name)
    options = _options(parts, name, _REGISTRY_OPTIONS, frozenset())
    return f"postgresql://{login}{parts.netloc}{parts.path}" + (
        f"?{urlencode(options, quote_via=quote)}" if options else ""
    )


def without_password(url: str) -> str:
    """Return a URL as it may be shown: the user stays, every password becomes `…`."""
    hidden = re.sub(r"://([^:/@]*):.*@", r"://\1:…@", url)
    return re.sub(r"(?i)((?:ssl_?)?password=)[^&\s]*", r"\1…", hidden)


def _scheme(text: str, name: str, example: str) -> tuple[str, str]:
    scheme, separator, rest = _plain(text, name).partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", scheme):
        raise SettingsError(f"{name} has no scheme: write it as {example}")
    return scheme.lower(), rest


def _plain(text: str, name: str, *, blanks: bool = False) -> str:
    text = text.strip()
    if len(text) > _LONGEST:
        raise SettingsError(f"{name} has {len(text)} characters, the limit is {_LONGEST}")
    if not all(character.isprintable() for character in text) or (not blanks and " " in text):
        raise SettingsError(f"{name} holds a blank or an unprintable character: percent-encode it (a blank as %20)")
    return text


def _login(rest: str) -> tuple[str, str]:
    """Return `user:password@`, encoded, and what follows it; the last @ ends it, since a password may hold others."""
    # A password may hold / and ?, too; a path that holds @ follows no login here.
    login, separator, address = rest.rpartition("@")
    if not separator or rest.startswith("/"):
        return "", rest
    user, colon, password = login.partition(":")
    return f"{_encoded(user)}{colon}{_encoded(password)}@", address


def _encoded(text: str) -> str:
    return quote(unquote(text), safe="")


def _split(url: str, name: str) -> SplitResult:
    try:
        parts: SplitResult | None = urlsplit(url)
    except ValueError:  # its message may quote a password that was taken for a host
        parts = None
    if parts is None:
        raise SettingsError(f"{name} has a host that cannot be read: an IPv6 address stands in brackets, [::1]")
    if parts.fragment or "#" in url:
        raise SettingsError(f"{name} holds a # outside of its password: percent-encode it as %23")
    return parts


def _require_address(parts: SplitResult, name: str, example: str) -> None:
    try:
        port, host = parts.port, parts.hostname
    except ValueError:
        port, host = -1, None
    if port is not None and not 0 < port <= _MOST_PORTS:
        raise SettingsError(f"{name} has a port that is no number from 1 to {_MOST_PORTS}")
    if not host:
        raise SettingsError(f"{name} has no host: write it as {example}")
    if "," in host:
        raise SettingsError(f"{name} names several hosts, it must name one: the primary")


def _options(parts: SplitResult, name: str, known: Collection[str], tolerated: Collection[str]) -> dict[str, str]:
    """Return the options of a query that are known or tolerated, each at most once."""
    options: dict[str, str] = {}
    for option, value in parse_qsl(parts.query, keep_blank_values=True):
        if option in options:
            raise SettingsError(f"{name} has the option {option} twice")
        if option not in known and option not in tolerated:
            shown = option if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", option) else "…"
            close = difflib.get_close_matches(option, [*known], n=1, cutoff=0.75)
            raise SettingsError(
                f"{name} has the unknown option {shown}" + (f"; did you mean {close[0]}?" if close else "")
            )
        options[option] = value
    return options


def _database(text: str, name: str) -> str:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _LARGEST_DATABASE:
        raise SettingsError(f"{name} names a database that is no number: write redis://host:6379/0")
    return str(int(text))


def _unknown_scheme(name: str, scheme: str, known: Iterable[str]) -> SettingsError:
    return SettingsError(f"{name} has the scheme {scheme}, known are {', '.join(known)}")
