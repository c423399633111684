"""On PYTHONPATH: has Microsoft's SDKs for back ends, which take no authority of a caller's, trust that of the test."""

import os

import certifi

certifi.where = lambda: os.environ["FIELDBRIDGE_CA_FILE"]
