// A back end: sends one command to a device, and learns what became of it.
//
//     node back_end.js DEVICE COMMAND [VALUE]
//
// SERVICE_CONNECTION_STRING is that of a policy with the right ServiceConnect, EVENTS_CONNECTION_STRING that of the
// hub's built-in endpoint ("Event Hub-compatible endpoint"). MESSAGE_ID is the id of a command that may have been sent
// before, to send it again; without it the command is a new one. It ends with 0 if the command succeeded.
'use strict';

const { randomUUID } = require('crypto');
const { Message } = require('azure-iot-common');
const { Client } = require('azure-iothub');
const { EventHubConsumerClient } = require('@azure/event-hubs');

const MINUTE = 60 * 1000;
// How long the command may wait for the device. After that the hub drops it, and the gateway does not begin it.
const LIFE = 2 * MINUTE;
// Feedback comes in batches, and so may be a while behind the end of the message.
const PATIENCE = LIFE + MINUTE;
// How far the clocks of this machine and of the hub may be apart.
const CLOCKS = 5 * MINUTE;
// How often a command is sent at most, by us: the SDK tries again by itself too, under the same id.
const ATTEMPTS = 3;
// Feedback that was given back so often is not given back again: the hub throws it away after ten times.
const RETURNS = 3;

// Sends a command. While nobody knows whether the hub has it, it is sent again: what has the same id is run once.
async function send(service, device, command, value, messageId) {
  const message = new Message(value);
  message.messageId = messageId;
  message.correlationId = 'order-4711';
  message.expiryTimeUtc = Date.now() + LIFE;
  message.ack = 'full';
  message.properties.add('command', command);
  for (let attempt = 1; ; attempt += 1) {
    try {
      await service.send(device, message);
      return;
    } catch (error) {
      if (attempt === ATTEMPTS || error.name === 'DeviceNotFoundError' || error.name === 'UnauthorizedError') {
        throw error;
      }
      console.error(`not sent, or nobody knows (${error.message}); trying again`);
      await new Promise((resolve) => setTimeout(resolve, attempt * 1000));
    }
  }
}

// What comes of listening, or null if nothing came in time. `listen` is given what to call with it.
function withinPatience(listen) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve(null), PATIENCE);
    const done = (found) => {
      clearTimeout(timer);
      resolve(found);
    };
    listen(done).catch(reject);
  });
}

// The hub's record of what became of the message, or null if there was none in time.
//
// Feedback is one queue for the whole hub. Where more than one waits for it, one process should take all of it, and
// tell each record to whoever waits. This one gives back what holds a record of anybody else's, and stops where that
// was given back too often.
async function feedbackOf(service, messageId) {
  const receiver = await new Promise((resolve, reject) => {
    service.getFeedbackReceiver((error, found) => (error ? reject(error) : resolve(found)));
  });
  const held = [];
  const isOwn = (record) => record.originalMessageId === messageId;
  const found = await withinPatience(async (done) => {
    receiver.on('message', (batch) => {
      const records = JSON.parse(batch.getData().toString());
      const whole = records.every(isOwn);
      const isWorn = !whole && (batch.transportObj.delivery_count || 0) >= RETURNS;
      held.push({ batch, whole, isWorn });
      const own = records.find(isOwn);
      if (own) {
        done(own);
      } else if (isWorn) {
        console.error('feedback of others goes round, and nobody takes it: another consumer is needed');
        done(null);
      }
    });
  });
  for (const { batch, whole, isWorn } of held) {
    if (whole) {
      await receiver.complete(batch);
    } else if (!isWorn) {
      await receiver.abandon(batch);
    }
    // Else its lock runs out, which the hub does not count.
  }
  return found;
}

// The gateway's result event, which says what became of the command. Null if there was none in time.
async function resultOf(events, messageId, since) {
  const client = new EventHubConsumerClient('$Default', events);
  try {
    return await withinPatience(async (done) => {
      const isResult = (event) => event.properties && event.properties.fieldbridge === 'command-result';
      client.subscribe(
        {
          processEvents: async (found) => {
            // It may come twice; the first is as good as the second.
            const own = found.find((event) => isResult(event) && event.correlationId === messageId);
            if (own) {
              done(own.body);
            }
          },
          // It tries again by itself.
          processError: async (error) => console.error(`events: ${error.message}`),
        },
        { startPosition: { enqueuedOn: since } }
      );
    });
  } finally {
    await client.close();
  }
}

async function main() {
  const args = process.argv.slice(2);
  if (args.length < 2 || args.length > 3) {
    console.error('usage: back_end.js DEVICE COMMAND [VALUE]');
    return 2;
  }
  const [device, command, value = ''] = args;
  const { SERVICE_CONNECTION_STRING: policy, EVENTS_CONNECTION_STRING: events } = process.env;
  // One id for each command, for ever: by it the gateway knows what comes twice.
  const messageId = process.env.MESSAGE_ID || randomUUID();
  const since = Date.now() - CLOCKS;
  // Before it is sent: whoever is interrupted in between needs it.
  console.log(`message id ${messageId}`);
  const service = Client.fromConnectionString(policy);
  await service.open();
  await send(service, device, command, value, messageId);
  console.log('sent');
  const record = await feedbackOf(service, messageId);
  console.log(`feedback: ${record ? record.statusCode : 'none in time'}`);
  await service.close();
  const result = await resultOf(events, messageId, since);
  if (!result) {
    // The device or the gateway is away: look into the ledger before anything is sent again under another id.
    console.log('result: none in time');
    return 1;
  }
  const reason = result.error ? ` (${result.error.code}: ${result.error.message})` : '';
  console.log(`result: ${result.status}${reason}`);
  return result.status === 'succeeded' ? 0 : 1;
}

main().then(
  (status) => process.exit(status),
  (error) => {
    console.error(error.message);
    process.exit(1);
  }
);
