"""The mock cluster that librdkafka brings along, for tests.

It speaks Kafka's protocol over TCP and keeps records in memory: real clients of any process talk to it. It is not a
Kafka broker: it was written by those who wrote the client, makes no files, no replicas and no topics on request, and
has no transactions' control records. What it shows is the client's side only.
"""

import contextlib
import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ERRORS = {"REQUEST_TIMED_OUT": 7, "TOPIC_AUTHORIZATION_FAILED": 29, "MSG_SIZE_TOO_LARGE": 10, "NOT_LEADER": 6}
PRODUCE = 0


class MockKafka:
    """A mock cluster of one broker, by the library's C interface: Python's has no access to topics and errors."""

    def __init__(self, library):
        self._library = library
        library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = ctypes.c_void_p
        library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
        library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        conf = ctypes.c_void_p(library.rd_kafka_conf_new())
        text = ctypes.create_string_buffer(512)
        library.rd_kafka_conf_set(conf, b"log_level", b"0", text, 512)
        self._handle = ctypes.c_void_p(library.rd_kafka_new(0, conf, text, 512))
        self._cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(self._handle, 1))
        self.server = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def make_topic(self, topic, partitions=1):
        assert self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1) == 0

    def fail(self, request, name, times=1):
        """Answer the next requests of a kind with an error."""
        self._library.rd_kafka_mock_push_request_errors(
            self._cluster, ctypes.c_int16(request), ctypes.c_size_t(times), *[ctypes.c_int(ERRORS[name])] * times
        )

    def remove_before(self, topic, offset):
        """Do as retention does."""
        code = self._library.rd_kafka_mock_partition_delete_records(
            self._cluster, topic.encode(), 0, ctypes.c_int64(offset)
        )
        assert code == 0

    def close(self):
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._handle)


@contextlib.contextmanager
def mocked():
    """A mock cluster until the end of the block."""
    found = importlib.util.find_spec("confluent_kafka")
    if found is None:
        pytest.skip("streams on Kafka need confluent-kafka: pip install confluent-kafka")
    paths = list(Path(found.origin).parents[1].glob("confluent_kafka.libs/librdkafka*"))
    if not paths:
        pytest.skip("the mock cluster is in the librdkafka that comes with the wheel of confluent-kafka")
    cluster = MockKafka(ctypes.CDLL(str(paths[0])))
    try:
        yield cluster
    finally:
        cluster.close()


class SeparateKafka:
    """A mock cluster in a process of its own, with one topic: it can hang and die."""

    def __init__(self, topic):
        self._process = subprocess.Popen(
            [sys.executable, __file__, topic], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.server = self._process.stdout.readline().strip()

    def pause(self):
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self):
        self._process.kill()
        self._process.wait()

    def close(self):
        self.kill()
        self._process.stdin.close()
        self._process.stdout.close()


if __name__ == "__main__":
    with mocked() as running:
        running.make_topic(sys.argv[1])
        print(running.server, flush=True)
        sys.stdin.read()
