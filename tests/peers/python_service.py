"""Microsoft's service SDK for Python, with its AMQP stack in C, as a peer of the tests: it sends messages to
devices, and calls their methods.

Takes one JSON command a line on standard input and prints one JSON event a line on standard output:
  {"op":"service","connectionString":…,"caFile":…,"way":"amqp"|"amqp-ws"}
  {"op":"command","device":…,"body":…,"messageId":…,"ack":…,"properties":{…}}
  {"op":"invoke","device":…,"name":…,"payload":…,"timeout":seconds}
  {"op":"close"}
"""

import json
import logging
import os
import sys

import certifi
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod
from uamqp import TransportType

logging.disable(logging.CRITICAL)


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def main():
    client = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["op"] == "service":
                # The SDK takes no authority of a caller's, and asks this module for the world's.
                certifi.where = lambda path=command["caFile"]: path
                os.environ["REQUESTS_CA_BUNDLE"] = command["caFile"]
                transport = TransportType.Amqp
                if command["way"] == "amqp-ws":
                    transport = TransportType.AmqpOverWebsocket
                client = IoTHubRegistryManager.from_connection_string(
                    command["connectionString"], transport_type=transport
                )
                say("connected")
            elif command["op"] == "command":
                properties = {"messageId": command["messageId"], "iothub-ack": command["ack"]}
                properties.update(command["properties"])
                client.send_c2d_message(command["device"], command["body"], properties)
                say("sent")
            elif command["op"] == "invoke":
                method = CloudToDeviceMethod(
                    method_name=command["name"],
                    payload=command["payload"],
                    response_timeout_in_seconds=command["timeout"],
                )
                answered = client.invoke_device_method(command["device"], method)
                say("invoked", status=answered.status, payload=answered.payload)
            elif command["op"] == "close":
                say("closed")
                return
        except Exception as error:  # pylint: disable=broad-except
            say("error", name=type(error).__name__, text=str(error))


main()
