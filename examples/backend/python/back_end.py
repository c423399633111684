"""A back end: sends one command to a device, and learns what became of it.

    python back_end.py DEVICE COMMAND [VALUE]

SERVICE_CONNECTION_STRING is that of a policy with the right ServiceConnect, EVENTS_CONNECTION_STRING that of the hub's
built-in endpoint ("Event Hub-compatible endpoint"). MESSAGE_ID is the id of a command that may have been sent before,
to send it again; without it the command is a new one. It ends with 0 if the command succeeded.
"""

import json
import os
import queue
import sys
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone

from azure.core.credentials import AccessToken
from azure.eventhub import EventHubConsumerClient
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.connection_string import ConnectionString
from azure.iot.hub.sastoken import SasToken
from uamqp import ReceiveClient
from uamqp.authentication import JWTTokenAuth

LIFE = timedelta(minutes=2)
"""How long the command may wait for the device. After that the hub drops it, and the gateway does not begin it."""
PATIENCE = LIFE + timedelta(minutes=1)
"""Feedback comes in batches, and so may be a while behind the end of the message."""
CLOCKS = timedelta(minutes=5)
"""How far the clocks of this machine and of the hub may be apart."""
ATTEMPTS = 3
"""How often a command is sent at most."""
RETURNS = 3
"""Feedback that was given back so often is not given back again: the hub throws it away after ten times."""


def send(policy, device, command, value, message_id):
    """Sends a command. While nobody knows whether the hub has it, it is sent again: what has one id is run once."""
    expires = datetime.now(timezone.utc) + LIFE
    properties = {
        "messageId": message_id,
        "correlationId": "order-4711",
        "expiryTimeUtc": int(expires.timestamp() * 1000),
        "iothub-ack": "full",
        "command": command,
    }
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return IoTHubRegistryManager.from_connection_string(policy).send_c2d_message(device, value, properties)
        # The SDK does not tell what passes from what stays.
        except Exception as error:  # pylint: disable=broad-except
            if attempt == ATTEMPTS:
                raise
            print(f"not sent, or nobody knows ({error}); trying again", file=sys.stderr)
            time.sleep(attempt)


def feedback_of(policy, message_id):
    """The hub's record of what became of the message, or None if there was none in time.

    Feedback is one queue for the whole hub. Where more than one waits for it, one process should take all of it, and
    tell each record to whoever waits. This one gives back what holds a record of anybody else's, and stops where that
    was given back too often.
    """
    parts = ConnectionString(policy)
    host, name, key = parts["HostName"], parts["SharedAccessKeyName"], parts["SharedAccessKey"]

    def token():
        signed = SasToken(host, key, name)
        return AccessToken(str(signed), signed.expiry_time)

    auth = JWTTokenAuth(f"https://{host}", f"https://{host}", token, token_type=b"servicebus.windows.net:sastoken")
    auth.update_token()
    source = f"amqps://{host}/messages/serviceBound/feedback"
    deadline = datetime.now(timezone.utc) + PATIENCE
    held, found, goes_round = [], None, False
    with ReceiveClient(source, auth=auth, auto_complete=False) as client:
        while found is None and not goes_round and datetime.now(timezone.utc) < deadline:
            for batch in client.receive_message_batch(timeout=1000):
                records = json.loads(b"".join(batch.get_data()))
                own = [record for record in records if record["originalMessageId"] == message_id]
                is_own = len(own) == len(records)
                is_worn = not is_own and batch.header is not None and batch.header.delivery_count >= RETURNS
                held.append((batch, is_own, is_worn))
                found = own[0] if own else found
                goes_round = goes_round or is_worn
        for batch, is_own, is_worn in held:
            if is_own:
                batch.accept()
            elif not is_worn:
                batch.release()
            # Else its lock runs out, which the hub does not count.
    if found is None and goes_round:
        print("feedback of others goes round, and nobody takes it: another consumer is needed", file=sys.stderr)
    return found


def result_of(events, message_id, since):
    """The gateway's result event, which says what became of the command. None if there was none in time."""
    found = queue.Queue()

    def on_event(_partition, event):
        is_result = event.properties.get(b"fieldbridge") == b"command-result"
        if is_result and event.correlation_id == message_id:
            found.put(json.loads(event.body_as_str()))

    client = EventHubConsumerClient.from_connection_string(events, consumer_group="$Default")
    with client:
        arguments = {"on_event": on_event, "starting_position": since}
        threading.Thread(target=client.receive, kwargs=arguments, daemon=True).start()
        try:
            # It may come twice; the first is as good as the second.
            return found.get(timeout=PATIENCE.total_seconds())
        except queue.Empty:
            return None


def main():
    """What the command line says."""
    if len(sys.argv) not in (3, 4):
        print("usage: back_end.py DEVICE COMMAND [VALUE]", file=sys.stderr)
        return 2
    device, command, value = (sys.argv[1:] + [""])[:3]
    policy, events = os.environ["SERVICE_CONNECTION_STRING"], os.environ["EVENTS_CONNECTION_STRING"]
    # One id for each command, for ever: by it the gateway knows what comes twice.
    message_id = os.environ.get("MESSAGE_ID") or str(uuid.uuid4())
    since = datetime.now(timezone.utc) - CLOCKS
    # Before it is sent: whoever is interrupted in between needs it.
    print(f"message id {message_id}", flush=True)
    send(policy, device, command, value, message_id)
    print("sent", flush=True)
    record = feedback_of(policy, message_id)
    print(f"feedback: {record['statusCode'] if record else 'none in time'}", flush=True)
    result = result_of(events, message_id, since)
    if result is None:
        # The device or the gateway is away: look into the ledger before anything is sent again under another id.
        print("result: none in time", flush=True)
        return 1
    reason = f" ({result['error']['code']}: {result['error']['message']})" if "error" in result else ""
    print(f"result: {result['status']}{reason}", flush=True)
    return 0 if result["status"] == "succeeded" else 1


sys.exit(main())
