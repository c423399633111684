// Microsoft's device SDK for Node.js as a peer of the tests; commands and events as in python_sdk.py.
// It runs with NODE_PATH set to the folder its packages were installed to.
'use strict';

const fs = require('fs');
const readline = require('readline');
const { Client, Message, X509AuthenticationProvider } = require('azure-iot-device');
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

function makeClient(command) {
  const { host, device, gateway, key } = command;
  if (key) {
    const auth = `SharedAccessKey=${key};GatewayHostName=${gateway}`;
    return Client.fromConnectionString(`HostName=${host};DeviceId=${device};${auth}`, Mqtt);
  }
  const x509 = {
    cert: fs.readFileSync(command.certFile, 'ascii'),
    key: fs.readFileSync(command.keyFile, 'ascii'),
  };
  // A connection string with x509=true loses its GatewayHostName.
  const credentials = { host, deviceId: device, gatewayHostName: gateway, x509 };
  return Client.fromAuthenticationProvider(new X509AuthenticationProvider(credentials), Mqtt);
}

async function connect(command) {
  const client = makeClient(command);
  await client.setOptions({ ca: fs.readFileSync(command.caFile, 'ascii') });
  client.on('error', () => {});
  // Before opening: a message of an earlier session may come at once.
  client.on('message', (message) => onMessage(client, message));
  await client.open();
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
