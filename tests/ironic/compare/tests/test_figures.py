import unittest

from tests import support

from figures import load, table

assert support

WRK = """Running 4s test @ https://172.31.20.2:9999/v1/commands/
  1 threads and 10 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.02ms  412.00us   9.11ms   88.13%
  Latency Distribution
     50%    0.95ms
     75%    1.20ms
     90%  850.00us
     99%    1.25s
  4021 requests in 4.00s, 1.20MB read
  Socket errors: connect 1, read 2, write 0, timeout 3
  Non-2xx or 3xx responses: 4
Requests/sec:   1005.10
Transfer/sec:    307.00KB
"""


class Figures(unittest.TestCase):
    def test_what_wrk_prints_is_read(self):
        self.assertEqual(load.parse(WRK), {"rate": 1005.1, "p50": 0.95, "p99": 1250.0, "errors": 10})

    def test_the_table_has_medians_and_factors(self):
        rounds = {
            "ipa": [{"start": {"lookup": value}, "news, idle": [4.0, 6.0], "load": {"idle, keep-alive, 1": {"rate": 100.0, "p99": 9.0, "errors": 0}}} for value in (3.0, 1.0, 2.0)],
            "ferric": [{"start": {"lookup": 0.1}, "news, idle": [0.5], "load": {"idle, keep-alive, 1": {"rate": 50.0, "p99": 3.0, "errors": 2}}}],
        }
        rows = {row[0]: row[1:] for row in table.rows(rounds, (1,))}
        self.assertEqual(rows["start of the process to first lookup"], ("2.00 s", "0.10 s", "20.0"))
        self.assertEqual(rows["end of a step to the heartbeat that tells, agent idle before"], ("5.00 s", "0.50 s", "10.0"))
        self.assertEqual(rows["`GET /v1/commands/`, idle, keep-alive, 1 client: requests a second"], ("100", "50.0", "0.5"))
        self.assertEqual(rows["... requests without an answer"], ("0", "2", "-"))
