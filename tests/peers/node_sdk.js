// Microsoft's device SDK for Node.js as a peer of the tests; commands and events as in python_sdk.py.
// It runs with NODE_PATH set to the folder its packages were installed to.
'use strict';

const fs = require('fs');
const readline = require('readline');
const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

function say(event, fields) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');
}

function onMessage(client, message) {
  const properties = {};
  for (const { key, value } of message.properties.propertyList) {
    properties[key] = value;
  }
  say('message', {
    messageId: message.messageId,
    correlationId: message.correlationId,
    contentType: message.contentType,
    contentEncoding: message.contentEncoding,
    properties,
    body: message.getData().toString(),
  });
  client.complete(message);
}

async function connect(command) {
  const auth = command.key ? `SharedAccessKey=${command.key}` : 'x509=true';
  const gateway = `GatewayHostName=${command.gateway}`;
  const client = Client.fromConnectionString(
    `HostName=${command.host};DeviceId=${command.device};${auth};${gateway}`,
    Mqtt,
  );
  const read = (path) => fs.readFileSync(path, 'ascii');
  const options = { ca: read(command.caFile) };
  if (command.certFile) {
    options.cert = read(command.certFile);
    options.key = read(command.keyFile);
  }
  await client.setOptions(options);
  await client.open();
  client.on('error', () => {});
  client.on('message', (message) => onMessage(client, message));
  return client;
}

async function main() {
  let client = null;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    try {
      if (command.op === 'connect') {
        client = await connect(command);
        say('connected');
      } else if (command.op === 'send') {
        const message = new Message(command.body);
        message.messageId = command.messageId;
        for (const [key, value] of Object.entries(command.properties)) {
          message.properties.add(key, value);
        }
        await client.sendEvent(message);
        say('sent');
      } else if (command.op === 'close') {
        await client.close();
        say('closed');
        process.exit(0);
      }
    } catch (error) {
      say('error', { name: error.name, text: error.message });
    }
  }
}

main();
