"""Kafka's client library at its edge: how it is set up, and its errors as ours."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from retrodict.core.errors import (
    ConfigurationError,
    InputError,
    IntegrityError,
    MissingExtraError,
    RetryableError,
    ServerAwayError,
)

MAX_RECORD = 1_000_000
_SECURITY = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")

# Codes of the protocol, and negative ones of the library's own.
_AUTHENTICATION, _FATAL = -169, -150
UNKNOWN = {3, -188, -190}  # topic or partition
_DENIED = {29, 30, 31, 33, 34, 58, _AUTHENTICATION, -181}  # authorization, SASL and TLS
_WRONG_TOPIC = {17, 37, 38, 40, 44}  # name, partitions, replicas, settings, policy of the cluster
_TOO_LONG = {10, 18}
OUT_OF_RANGE = {1, -140}
_AWAY = {-185, -187, -193, -195}  # no answer in time, no broker, no such name, no connection
END = -191

_REMEDY = "See that the brokers run, can be reached and accept the credentials, then try again"

_log = logging.Logger("retrodict.kafka")  # noqa: LOG001  # the library's own messages name addresses
_log.addHandler(logging.NullHandler())


def connection_config(
    servers: Sequence[str], security: str, mechanism: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Settings of the library that all its clients share; credentials from the environment."""
    if find_spec("confluent_kafka") is None:
        raise MissingExtraError("confluent-kafka", "kafka", needed_for="event streams on Kafka")
    if security not in _SECURITY:
        raise ConfigurationError(
            f"security must be one of {', '.join(_SECURITY)}",
            where="streams",
            got=f"a word of {len(security)} letters",
            remedy="Leave it out for plain text",
        )
    config: dict[str, Any] = {
        "bootstrap.servers": ",".join(servers),
        "client.id": "retrodict",
        "security.protocol": security,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
        "logger": _log,
        "error_cb": _ignore,
    }
    if security.startswith("sasl"):
        config |= {"sasl.mechanism": mechanism}
        config |= {"sasl.username": environment.get("KAFKA_USERNAME", "")}
        config |= {"sasl.password": environment.get("KAFKA_PASSWORD", "")}
    return config


def make_consumer(config: Mapping[str, Any]) -> Any:
    """Client that reads partitions it is told to, and commits nothing."""
    from confluent_kafka import Consumer

    settings = {
        "group.id": "retrodict",  # the library asks for one; nothing is ever committed under it
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": 8192,
        "fetch.max.bytes": 8 << 20,
    }
    with mapped("streams"):
        return Consumer({**config, **settings})


def make_producer(config: Mapping[str, Any]) -> Any:
    """Client that numbers its records, so that the brokers take each of them once and in order."""
    from confluent_kafka import Producer

    settings = {
        "acks": "all",
        "enable.idempotence": True,
        # A record stays queued until it is acknowledged: giving up would leave its fate unknown.
        "message.timeout.ms": 0,
        "message.max.bytes": MAX_RECORD,
        "queue.buffering.max.kbytes": 65536,
        "linger.ms": 1,
    }
    with mapped("streams"):
        return Producer({**config, **settings})


@contextlib.contextmanager
def mapped(where: str) -> Iterator[None]:
    """Errors of the library as ours; its own texts name addresses."""
    from confluent_kafka import KafkaException

    try:
        yield
    except KafkaException as error:
        raise translate(error.args[0], where) from None


def translate(error: Any, where: str) -> Exception:
    """Error of ours for one of the library's."""
    code, name = error.code(), error.name()
    if code in _DENIED:
        remedy = "Set KAFKA_USERNAME and KAFKA_PASSWORD in the environment, and security= and mechanism= in the URL"
        return ConfigurationError("the brokers must accept the credentials", where=where, got=name, remedy=remedy)
    if code in _WRONG_TOPIC:
        remedy = "Name it otherwise, or make the topic by hand with one partition"
        return ConfigurationError("the brokers must make the topic of the stream", where=where, got=name, remedy=remedy)
    if code in _TOO_LONG:
        return InputError(
            "a record must be no longer than the brokers allow",
            where=where,
            got=name,
            remedy="Keep large values in the object store",
        )
    if error.fatal() or code == _FATAL:
        remedy = "Look at the end of the stream for what was kept, then open a new writer"
        return IntegrityError("the brokers must know which record comes next", where=where, got=name, remedy=remedy)
    if code == -186:  # a setting the library does not know
        return ConfigurationError(
            "the client must take its settings", where=where, got=name, remedy="Check the options of the URL"
        )
    kind = ServerAwayError if code in _AWAY else RetryableError
    return kind("the brokers must answer", where=where, got=name, remedy=_REMEDY)


def silent(where: str, timeout_s: float) -> ServerAwayError:
    """Say that nothing came within the time limit."""
    return ServerAwayError(
        f"the brokers must answer within {timeout_s:g} s",
        where=where,
        remedy=_REMEDY,
        got="no answer",
    )


def _ignore(error: Any) -> None:
    """What the library reports beside a call: the call itself fails with it."""
    del error
