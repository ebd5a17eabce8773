"""Asks flowkeeper for the health of ZooKeeper ensembles, from a task or from any other Python.

It knows which checks there are, how one of several members is reached, and what members answer.
It needs Python 3.8 and nothing else, and touches no network before it is asked something. Nothing
that it asks for changes anything, so every request may be sent again, to the same member or to
another. The token is in no message, no log and no `repr`.
"""

from __future__ import annotations

import json
import os
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, TypeVar, Union
from urllib.parse import quote, urlsplit

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """A check, as docs/health.md describes it."""

    name: str
    #: Where it is shown; no name of a check.
    group: str
    #: Whether each server has a verdict of its own; else there is one for the ensemble.
    per_server: bool = False


#: Every check, in the order in which flowkeeper shows them.
CHECKS: Tuple[Check, ...] = (
    Check("serving", "service", per_server=True),
    Check("commands", "service"),
    Check("leader", "agreement"),
    Check("quorum", "agreement"),
    Check("synced_followers", "agreement"),
    Check("zxid_lag", "agreement", per_server=True),
    Check("epoch", "agreement"),
    Check("outstanding_requests", "load", per_server=True),
    Check("pending_syncs", "load", per_server=True),
    Check("latency", "load", per_server=True),
    Check("fsync", "load", per_server=True),
    Check("connections", "load", per_server=True),
    Check("file_descriptors", "load", per_server=True),
    Check("znode_count", "growth", per_server=True),
    Check("data_size", "growth", per_server=True),
    Check("watches", "growth", per_server=True),
    Check("ephemerals", "growth", per_server=True),
    Check("directory_size", "growth", per_server=True),
    Check("churn", "upkeep", per_server=True),
    Check("read_only", "service", per_server=True),
    Check("version_skew", "upkeep"),
    Check("certificate", "upkeep", per_server=True),
    Check("canary", "service", per_server=True),
    Check("membership", "agreement"),
    Check("clock", "upkeep"),
    Check("counters", "upkeep", per_server=True),
)

#: The verdicts, the worst first: what is known to be bad comes before what is not known.
VERDICTS: Tuple[str, ...] = ("critical", "warning", "unknown", "ok", "not_applicable")

#: Where a member listens unless it is told otherwise.
DEFAULT_URL = "http://127.0.0.1:8787"

#: How long one member may take to answer, in seconds: a check looks twice, and waits for servers
#: that stay silent.
DEFAULT_TIMEOUT = 60.0

#: The longest answer that is read, in bytes.
ANSWER_LIMIT = 16 << 20

#: Statuses that another member, or the same one later, may not answer with.
PASSING_STATUSES = (408, 425, 429)


class FlowkeeperError(Exception):
    """What was tried and why it failed, with a hint for whoever reads it."""

    def __init__(self, message: str, hint: Optional[str] = None) -> None:
        super().__init__(message if hint is None else f"{message}\nhint: {hint}")
        self.message = message
        self.hint = hint


class SettingsError(FlowkeeperError):
    """The connection, or a variable of the environment, cannot be used."""


class UnreachableError(FlowkeeperError):
    """No member answered well; trying again later may help."""


class RefusedError(FlowkeeperError):
    """flowkeeper understood and said no; trying again does not help."""


class _Unanswered(Exception):
    """One member did not answer well, and why."""


@dataclass(frozen=True)
class Settings:
    """How flowkeeper is reached. The members at `urls` are tried in this order."""

    urls: Tuple[str, ...] = (DEFAULT_URL,)
    token: Optional[str] = field(default=None, repr=False)
    #: How long one member may take to answer, in seconds.
    timeout: float = DEFAULT_TIMEOUT
    #: A file with certificates to trust, for `https`; otherwise those of the system.
    ca: Optional[str] = None

    def __post_init__(self) -> None:
        if not self.urls:
            raise SettingsError("failed to reach flowkeeper: no address is given", "for example " + DEFAULT_URL)
        for url in self.urls:
            _refuse_bad_url(url)
        # What a header cannot hold would be shown by the error that says so.
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise SettingsError(
                "failed to use the token for flowkeeper: it has characters that no token has",
                "is it the token itself, without a line break or quotes around it?",
            )
        if not 0 < self.timeout <= 3600:
            raise SettingsError(f"failed to use the timeout of {self.timeout} s", "give seconds, at most an hour")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Reads FLOWKEEPER_URL (several separated by commas), FLOWKEEPER_TOKEN or
        FLOWKEEPER_TOKEN_FILE, FLOWKEEPER_TIMEOUT (seconds) and FLOWKEEPER_CA."""
        token = environment.get("FLOWKEEPER_TOKEN")
        path = environment.get("FLOWKEEPER_TOKEN_FILE")
        if not token and path:
            try:
                with open(path, encoding="utf-8") as file:
                    token = file.read()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is no text"
                raise SettingsError(
                    f"failed to read the token from {path}: {reason}", "FLOWKEEPER_TOKEN_FILE names the file"
                ) from None
        return cls._of(
            environment.get("FLOWKEEPER_URL") or DEFAULT_URL,
            token,
            environment.get("FLOWKEEPER_TIMEOUT") or DEFAULT_TIMEOUT,
            environment.get("FLOWKEEPER_CA"),
        )

    @classmethod
    def from_connection(
        cls,
        host: Optional[str],
        port: Optional[int] = None,
        scheme: Optional[str] = None,
        token: Optional[str] = None,
        extra: Optional[Mapping[str, Any]] = None,
    ) -> Settings:
        """Reads the fields of an Airflow connection.

        `host` is a name, or `name:port`, or a whole URL; several are separated by commas. `port`
        and `scheme` are for those without one. `extra` may have `timeout` and `ca`.
        """
        extra = extra or {}
        urls = []
        for part in (host or "").split(","):
            part = part.strip()
            if part and "://" not in part:
                has_port = ":" in part.rsplit("]", 1)[-1]
                default = 443 if scheme == "https" else 8787
                part = f"{scheme or 'http'}://{part}" + ("" if has_port else f":{port or default}")
            urls.append(part)
        return cls._of(
            ",".join(urls) or DEFAULT_URL, token, extra.get("timeout") or DEFAULT_TIMEOUT, extra.get("ca") or None
        )

    @classmethod
    def _of(cls, urls: str, token: Optional[str], timeout: Union[str, float], ca: Optional[str]) -> Settings:
        try:
            seconds = float(timeout)
        except (TypeError, ValueError):
            raise SettingsError(f"failed to use the timeout {timeout!r}", "give seconds, 60 for example") from None
        addresses = tuple(url.strip().rstrip("/") for url in urls.split(",") if url.strip())
        return cls(addresses, (token or "").strip() or None, seconds, ca)


def _refuse_bad_url(url: str) -> None:
    hint = "write http://host:port or https://host:port, several separated by commas"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SettingsError("failed to read an address of flowkeeper: it is no URL", hint) from None
    if "@" in parts.netloc:
        # Whatever stands there is not repeated.
        raise SettingsError(
            "failed to use an address of flowkeeper: it has a user or a password in it",
            "give the token as the connection's password, or as FLOWKEEPER_TOKEN",
        )
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise SettingsError(f"failed to use the address {url!r} of flowkeeper", hint)


@dataclass(frozen=True)
class Finding:
    """One judgement: of one check on one server, or on the ensemble."""

    check: str
    #: `None` for the ensemble as a whole.
    server: Optional[str]
    #: One of `VERDICTS`.
    verdict: str
    #: What was measured, in `unit`.
    value: Optional[float]
    unit: Optional[str]
    #: From which value on it is a warning, and critical.
    warn: Optional[float]
    critical: Optional[float]
    #: What it means, in one sentence.
    meaning: str
    #: What to do, in one sentence.
    remedy: Optional[str]

    @property
    def sentences(self) -> str:
        """What it means and what to do."""
        return self.meaning if self.remedy is None else f"{self.meaning} {self.remedy}"

    def as_dict(self) -> Dict[str, Any]:
        """Plain JSON, in flowkeeper's own shape."""
        limits = {"warn": self.warn, "critical": self.critical}
        return {
            "check": self.check,
            "server": self.server,
            "verdict": self.verdict,
            "value": self.value,
            "unit": self.unit,
            "threshold": None if limits == {"warn": None, "critical": None} else limits,
            "meaning": self.meaning,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Report:
    """What checks found."""

    ensemble: str
    #: The worst of all findings.
    verdict: str
    findings: Tuple[Finding, ...]


@dataclass(frozen=True)
class Owner:
    """A session that owns ephemeral znodes."""

    #: Its id, in hexadecimal digits with `0x` in front.
    session: str
    #: Whether a server still counts it among the living; `None` where none could be asked.
    alive: Optional[bool]
    #: Whether a server has a connection of it; `None` where not all could be asked.
    connected: Optional[bool]
    #: How many ephemeral znodes it owns.
    ephemerals: int
    #: Some of them.
    paths: Tuple[str, ...]
    #: The addresses of its clients.
    clients: Tuple[str, ...]
    #: How long its oldest connection has lasted, in seconds.
    connected_for: Optional[float]

    @property
    def is_stale(self) -> bool:
        """Whether nobody is left to whom its znodes could belong."""
        return self.alive is False and self.connected is False


@dataclass(frozen=True)
class Owners:
    """The sessions that own ephemeral znodes, and the servers that could not be asked, with why."""

    ensemble: str
    owners: Tuple[Owner, ...]
    unanswered: Tuple[Tuple[str, str], ...]


class _EveryAnswer(urllib.request.HTTPErrorProcessor):
    """An answer is an answer, whatever its status. Nothing is followed: the token goes to the
    addresses in the settings and to no other."""

    def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:
        return response

    https_response = http_response


class Client:
    """Asks the first member that answers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        handlers: List[urllib.request.BaseHandler] = [_EveryAnswer()]
        if any(url.startswith("https:") for url in settings.urls):
            try:
                context = ssl.create_default_context(cafile=settings.ca)
            except OSError as error:
                raise SettingsError(
                    f"failed to read the certificates in {settings.ca}: {error.strerror or error}",
                    "`ca` names a file with certificates in PEM",
                ) from None
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def run_check(self, ensemble: str, check: str) -> Report:
        """Has a check run now, and says what it found."""
        path = f"/api/v1/ensembles/{quote(ensemble, safe='')}/checks/{quote(check, safe='')}/run"
        return self._ask("POST", path, f"run the check `{check}` on the ensemble `{ensemble}`", _report)

    def owners_of_ephemerals(self, ensemble: str) -> Owners:
        """Asks which sessions own ephemeral znodes, and whether they live."""
        path = f"/api/v1/ensembles/{quote(ensemble, safe='')}/ephemerals"
        return self._ask("GET", path, f"list who owns ephemeral znodes of the ensemble `{ensemble}`", _owners)

    def _ask(self, method: str, path: str, what: str, read: Callable[[Mapping[str, Any]], T]) -> T:
        unanswered = []
        for url in self.settings.urls:
            try:
                return self._ask_member(url, method, path, what, read)
            except _Unanswered as reason:
                unanswered.append(f"{url} {reason}")
        raise UnreachableError(
            f"failed to {what}: {'; '.join(unanswered)}",
            "is `flowkeeper serve` running there? The address comes from the Airflow connection, "
            "or from FLOWKEEPER_URL",
        )

    def _ask_member(self, url: str, method: str, path: str, what: str, read: Callable[[Mapping[str, Any]], T]) -> T:
        headers = {"Accept": "application/json", "User-Agent": "flowkeeper-client"}
        if self.settings.token is not None:
            headers["Authorization"] = f"Bearer {self.settings.token}"
        body = None
        if method == "POST":
            body = b"{}"
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url + path, body, headers, method=method)
        status, answer = self._exchange(request)
        content = _object(answer)
        if 200 <= status < 300:
            try:
                if content is None:
                    raise ValueError("it is no JSON object")
                return read(content)
            except (KeyError, TypeError, ValueError) as error:
                reason = f"`{error.args[0]}` is missing" if isinstance(error, KeyError) else str(error)
                raise _Unanswered(f"answers something that flowkeeper does not say: {reason}") from None
        if 300 <= status < 400:
            raise _Unanswered(f"answers HTTP {status}: it sends its callers elsewhere, where no token is sent to")
        detail = content.get("detail") if content else None
        if not isinstance(detail, str):
            raise _Unanswered(f"answers HTTP {status}, and not as flowkeeper does: is it another program?")
        if status >= 500 or status in PASSING_STATUSES:
            raise _Unanswered(f"answers HTTP {status}: {detail}")
        hint = content.get("hint") if content else None
        if status in (401, 403):
            hint = hint or "give a token of role `read`: the connection's password, or FLOWKEEPER_TOKEN"
        raise RefusedError(f"failed to {what}: {url} answers HTTP {status}: {detail}", hint)

    def _exchange(self, request: urllib.request.Request) -> Tuple[int, bytes]:
        deadline = time.monotonic() + self.settings.timeout
        try:
            with self._opener.open(request, timeout=self.settings.timeout) as answer:
                return answer.status, _read(answer, deadline)
        except urllib.error.URLError as error:
            raise _Unanswered(f"cannot be reached: {self._reason(error.reason)}") from None
        except (OSError, HTTPException) as error:
            raise _Unanswered(f"breaks off: {self._reason(error)}") from None

    def _reason(self, reason: Union[str, BaseException]) -> str:
        if isinstance(reason, TimeoutError) or "timed out" in str(reason):
            return f"no answer within {self.settings.timeout:g} s"
        if isinstance(reason, OSError) and reason.strerror:
            return reason.strerror
        return str(reason) or type(reason).__name__


def _read(answer: HTTPResponse, deadline: float) -> bytes:
    """The whole body; a limit on each wait alone would let a member trickle for ever."""
    parts: List[bytes] = []
    size = 0
    while True:
        part = answer.read1(1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > ANSWER_LIMIT:
            raise _Unanswered("answers without end")
        if time.monotonic() > deadline:
            raise _Unanswered("answers too slowly")


def _object(answer: bytes) -> Optional[Mapping[str, Any]]:
    try:
        content = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _report(answer: Mapping[str, Any]) -> Report:
    findings = tuple(_finding(finding) for finding in answer["checks"])
    return Report(_text(answer, "ensemble"), _verdict(answer), findings)


def _finding(answer: Mapping[str, Any]) -> Finding:
    limits = answer.get("threshold") or {}
    return Finding(
        check=_text(answer, "check"),
        server=_optional_text(answer, "server"),
        verdict=_verdict(answer),
        value=_number(answer, "value"),
        unit=_optional_text(answer, "unit"),
        warn=_number(limits, "warn"),
        critical=_number(limits, "critical"),
        meaning=_text(answer, "meaning"),
        remedy=_optional_text(answer, "remedy"),
    )


def _owners(answer: Mapping[str, Any]) -> Owners:
    owners = []
    for owner in answer["sessions"]:
        connections = owner["connections"]
        lasted = [_number(connection, "age_s") for connection in connections]
        owners.append(
            Owner(
                session=_text(owner, "session"),
                alive=_optional_flag(owner, "alive"),
                connected=_optional_flag(owner, "connected"),
                ephemerals=int(owner["ephemerals"]),
                paths=tuple(str(path) for path in owner["paths"]),
                clients=tuple(_text(connection, "client") for connection in connections),
                connected_for=max((age for age in lasted if age is not None), default=None),
            )
        )
    unanswered = tuple(
        (_text(server, "server"), _text(server, "error")) for server in answer["servers"] if server.get("error")
    )
    return Owners(_text(answer, "ensemble"), tuple(owners), unanswered)


def _verdict(answer: Mapping[str, Any]) -> str:
    verdict = _text(answer, "verdict")
    if verdict not in VERDICTS:
        raise ValueError(f"there is no verdict {verdict!r}")
    return verdict


def _text(answer: Mapping[str, Any], key: str) -> str:
    value = answer[key]
    if not isinstance(value, str):
        raise ValueError(f"`{key}` is no text")
    return value


def _optional_text(answer: Mapping[str, Any], key: str) -> Optional[str]:
    return None if answer.get(key) is None else _text(answer, key)


def _number(answer: Mapping[str, Any], key: str) -> Optional[float]:
    value = answer.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ValueError(f"`{key}` is no number")
    return value


def _optional_flag(answer: Mapping[str, Any], key: str) -> Optional[bool]:
    value = answer.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"`{key}` is neither true nor false")
    return value
