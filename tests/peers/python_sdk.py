"""Microsoft's device SDK for Python as a peer of the tests.

Takes one JSON command a line on standard input and prints one JSON event a line on standard output:
  {"op":"connect","gateway":…,"caFile":…,"host":…,"device":…} with "key", or with "certFile" and "keyFile";
   "way":"mqtt-ws" goes through a WebSocket
  {"op":"send","body":…,"messageId":…,"properties":{…}}
  {"op":"register","gateway":…,"caFile":…,"idScope":…,"registrationId":…} with a key or a certificate as above: with the
   Device Provisioning Service
  {"op":"method","name":…,"status":…,"payload":…}: from now on calls of this method are told, and answered so
  {"op":"twin"}: the device's twin, and from now on what is desired of it is told
  {"op":"report","patch":{…}}
  {"op":"close"}
"""

import json
import logging
import sys
import threading

from azure.iot.device import (
    IoTHubDeviceClient,
    Message,
    MethodResponse,
    ProvisioningDeviceClient,
    X509,
)

# Every lost connection would print a traceback.
logging.disable(logging.CRITICAL)
printing = threading.Lock()


def say(event, **fields):
    with printing:
        print(json.dumps({"event": event, **fields}), flush=True)


def on_message(message):
    say(
        "message",
        messageId=message.message_id,
        correlationId=message.correlation_id,
        contentType=message.content_type,
        contentEncoding=message.content_encoding,
        properties=message.custom_properties,
        body=message.data.decode(),
    )


def answer_method(client, command):
    def on_method(request):
        say("method", name=request.name, payload=request.payload)
        response = MethodResponse.create_from_method_request(request, command["status"], command["payload"])
        client.send_method_response(response)
        say("answered", error=None)

    client.on_method_request_received = on_method


def read_twin(client):
    client.on_twin_desired_properties_patch_received = lambda delta: say("desired", delta=delta)
    twin = client.get_twin()
    say("twin", desired=twin["desired"], reported=twin["reported"])


def make_client(command):
    with open(command["caFile"], encoding="ascii") as file:
        options = {
            "server_verification_cert": file.read(),
            "gateway_hostname": command["gateway"],
            # The default is 10 s.
            "connection_retry_interval": 1,
            "websockets": command.get("way") == "mqtt-ws",
        }
    if "key" in command:
        return IoTHubDeviceClient.create_from_symmetric_key(
            command["key"], command["host"], command["device"], **options
        )
    x509 = X509(command["certFile"], command["keyFile"])
    return IoTHubDeviceClient.create_from_x509_certificate(
        x509, command["host"], command["device"], **options
    )


def register(command):
    with open(command["caFile"], encoding="ascii") as file:
        options = {
            "server_verification_cert": file.read(),
            "websockets": command.get("way") == "mqtt-ws",
        }
    # The service is known to it by its address.
    host, scope = command["gateway"], command["idScope"]
    known_as = command["registrationId"]
    if "key" in command:
        client = ProvisioningDeviceClient.create_from_symmetric_key(
            host, known_as, scope, command["key"], **options
        )
    else:
        x509 = X509(command["certFile"], command["keyFile"])
        client = ProvisioningDeviceClient.create_from_x509_certificate(
            host, known_as, scope, x509, **options
        )
    result = client.register()
    state = result.registration_state
    say("registered", status=result.status, hub=state.assigned_hub, device=state.device_id)


def main():
    client = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["op"] == "connect":
                client = make_client(command)
                # The handler first, which connects: a message that comes before there is a handler is completed by the
                # SDK, and no handler ever sees it.
                client.on_message_received = on_message
                say("connected")
            elif command["op"] == "send":
                message = Message(command["body"], message_id=command["messageId"])
                message.custom_properties = command["properties"]
                client.send_message(message)
                say("sent")
            elif command["op"] == "register":
                register(command)
            elif command["op"] == "method":
                answer_method(client, command)
                say("answering")
            elif command["op"] == "twin":
                read_twin(client)
            elif command["op"] == "report":
                client.patch_twin_reported_properties(command["patch"])
                say("reported", error=None)
            elif command["op"] == "close":
                client.shutdown()
                say("closed")
                return
        except Exception as error:  # pylint: disable=broad-except
            say("error", name=type(error).__name__, text=str(error))


main()
