// Microsoft's device and service SDKs for Node.js as a peer of the tests; commands and events as in python_sdk.py, and:
//   "way" of "connect": mqtt (default), mqtt-ws, amqp, amqp-ws, http
//   {"op":"register","host":…,…}, over http, mqtt or mqtt-ws
//   {"op":"service","way":"amqp"|"amqp-ws","connectionString":…,"address":…,"caFile":…}, or with "bearer" and "host"
//   {"op":"command","device":…,"body":…,"messageId":…,"ack":…,"properties":{…}}
//   {"op":"method","name":…,"status":…,"payload":…}: from now on calls of this method are told, and answered so
//   {"op":"invoke","device":…,"name":…,"payload":…,"timeout":seconds}, by a "service" that need not be opened: its "way" is http
//   {"op":"twin"}: the device's twin, and from now on what is desired of it is told
//   {"op":"report","patch":{…}}, once the twin is there
//   {"op":"registry","connectionString":…,"address":…}, for: {"op":"getTwin","device":…} and
//   {"op":"updateTwin","device":…,"patch":{…},"etag":…}
//   {"op":"feedback","release":true|false}: from now on feedback is completed, but for the first batch if so said
// It runs with NODE_PATH set to the folder its packages were installed to.
'use strict';

const dns = require('dns');
const fs = require('fs');
const readline = require('readline');

const lookup = dns.lookup;
const addresses = {};
// All but MQTT know no gateway: they are led to the hub by its name.
dns.lookup = (name, options, callback) => {
  const done = callback || options;
  const address = addresses[name];
  if (!address) {
    return lookup(name, options, callback);
  }
  return options.all ? done(null, [{ address, family: 4 }]) : done(null, address, 4);
};

const { Client, Message, X509AuthenticationProvider } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const { Http } = require('azure-iot-device-http');

const WAYS = { mqtt: Mqtt, 'mqtt-ws': MqttWs, amqp: Amqp, 'amqp-ws': AmqpWs, http: Http };
const HEADER = 'iothub-app-';

function say(event, fields) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');
}

function onMessage(client, message) {
  const properties = {};
  for (const { key, value } of message.properties.propertyList) {
    // Over HTTP the SDK gives the headers' whole names.
    properties[key.startsWith(HEADER) ? key.slice(HEADER.length) : key] = value;
  }
  say('message', {
    messageId: message.messageId,
    correlationId: message.correlationId,
    contentType: message.contentType,
    contentEncoding: message.contentEncoding,
    properties,
    body: message.getData().toString(),
  });
  const settle = properties.settle || 'complete';
  client[settle](message, (error) => {
    if (properties.settle) {
      say('settled', { settle, error: error ? error.name : null });
    }
  });
}

function makeClient(command) {
  const { host, device, gateway, key, way } = command;
  const transport = WAYS[way || 'mqtt'];
  const isMqtt = transport === Mqtt;
  if (!isMqtt) {
    addresses[host] = gateway;
  }
  if (key) {
    const auth = `SharedAccessKey=${key}` + (isMqtt ? `;GatewayHostName=${gateway}` : '');
    return Client.fromConnectionString(`HostName=${host};DeviceId=${device};${auth}`, transport);
  }
  const x509 = {
    cert: fs.readFileSync(command.certFile, 'ascii'),
    key: fs.readFileSync(command.keyFile, 'ascii'),
  };
  // A connection string with x509=true loses its GatewayHostName.
  const credentials = { host, deviceId: device, x509 };
  if (isMqtt) {
    credentials.gatewayHostName = gateway;
  }
  return Client.fromAuthenticationProvider(new X509AuthenticationProvider(credentials), transport);
}

async function connect(command) {
  const client = makeClient(command);
  const options = { ca: fs.readFileSync(command.caFile, 'ascii') };
  if (command.way === 'http') {
    // Without it setOptions never comes back.
    options.http = { receivePolicy: { interval: 1, drain: true } };
  }
  await client.setOptions(options);
  client.on('error', () => {});
  // Before opening: a message of an earlier session may come at once.
  client.on('message', (message) => onMessage(client, message));
  await client.open();
  return client;
}

function provisioningTransport(way) {
  // Loaded when they are needed: they are not of the device's own packages.
  const mqtt = require('azure-iot-provisioning-device-mqtt');
  const { Http: ProvisioningHttp } = require('azure-iot-provisioning-device-http');
  const ways = { http: ProvisioningHttp, mqtt: mqtt.Mqtt, 'mqtt-ws': mqtt.MqttWs };
  return new ways[way]();
}

async function register(command) {
  const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
  const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
  const { X509Security } = require('azure-iot-security-x509');
  const { host, idScope, registrationId, key } = command;
  addresses[host] = command.gateway;
  const read = (name) => fs.readFileSync(command[name], 'ascii');
  const security = key
    ? new SymmetricKeySecurityClient(registrationId, key)
    : new X509Security(registrationId, { cert: read('certFile'), key: read('keyFile') });
  const client = ProvisioningDeviceClient.create(host, idScope, provisioningTransport(command.way), security);
  const result = await client.register();
  return { status: result.status, hub: result.assignedHub, device: result.deviceId };
}

async function connectService(command) {
  // The service's packages take no authority of a caller's; Node's own list is read at start.
  const hub = require('azure-iothub');
  const transport = command.way === 'amqp-ws' ? hub.AmqpWs : undefined;
  if (command.bearer) {
    addresses[command.host] = command.address;
    const token = { token: command.bearer, expiresOnTimestamp: Date.now() + 3600000 };
    return hub.Client.fromTokenCredential(command.host, { getToken: async () => token }, transport);
  }
  addresses[/HostName=([^;]*)/.exec(command.connectionString)[1]] = command.address;
  return hub.Client.fromConnectionString(command.connectionString, transport);
}

async function receiveFeedback(service, command) {
  // As a promise it comes wrapped.
  const receiver = await new Promise((resolve, reject) => {
    service.getFeedbackReceiver((error, found) => (error ? reject(error) : resolve(found)));
  });
  let releases = command.release;
  receiver.on('message', (batch) => {
    const records = JSON.parse(batch.getData().toString());
    say('feedback', { contentType: batch.contentType, records, released: !!releases });
    const done = (error) => say('feedbackSettled', { error: error ? error.name : null });
    if (releases) {
      releases = false;
      receiver.abandon(batch, done);
    } else {
      receiver.complete(batch, done);
    }
  });
}

function answerMethod(client, command) {
  client.onDeviceMethod(command.name, (request, response) => {
    say('method', { name: request.methodName, payload: request.payload === undefined ? null : request.payload });
    response.send(command.status, command.payload, (error) => say('answered', { error: error ? error.name : null }));
  });
}

async function invoke(service, command) {
  const call = { methodName: command.name, payload: command.payload, responseTimeoutInSeconds: command.timeout };
  const { result } = await service.invokeDeviceMethod(command.device, call);
  say('invoked', result);
}

async function readTwin(client) {
  const twin = await client.getTwin();
  say('twin', { desired: twin.properties.desired, reported: twin.properties.reported });
  // It tells of all that is there, and then of each change.
  twin.on('properties.desired', (delta) => say('desired', { delta }));
  return twin;
}

function report(twin, patch) {
  twin.properties.reported.update(patch, (error) => say('reported', { error: error ? error.name : null }));
}

function connectRegistry(command) {
  addresses[/HostName=([^;]*)/.exec(command.connectionString)[1]] = command.address;
  return require('azure-iothub').Registry.fromConnectionString(command.connectionString);
}

function tellTwin(event, { responseBody: { etag, properties } }) {
  say(event, { etag, properties });
}

function makeMessage(command) {
  const message = new Message(command.body);
  message.messageId = command.messageId;
  for (const [key, value] of Object.entries(command.properties || {})) {
    message.properties.add(key, value);
  }
  return message;
}

async function main() {
  let client = null;
  let twin = null;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    try {
      if (command.op === 'connect') {
        client = await connect(command);
        say('connected');
      } else if (command.op === 'send') {
        await client.sendEvent(makeMessage(command));
        say('sent');
      } else if (command.op === 'register') {
        say('registered', await register(command));
      } else if (command.op === 'service') {
        client = await connectService(command);
        if (command.way !== 'http') {
          await client.open();
        }
        say('connected');
      } else if (command.op === 'command') {
        const message = makeMessage(command);
        message.ack = command.ack;
        message.correlationId = command.correlationId;
        message.expiryTimeUtc = command.expiry;
        await client.send(command.device, message);
        say('sent');
      } else if (command.op === 'method') {
        answerMethod(client, command);
        say('answering');
      } else if (command.op === 'invoke') {
        await invoke(client, command);
      } else if (command.op === 'twin') {
        twin = await readTwin(client);
      } else if (command.op === 'report') {
        report(twin, command.patch);
      } else if (command.op === 'registry') {
        client = connectRegistry(command);
        say('connected');
      } else if (command.op === 'getTwin') {
        tellTwin('got', await client.getTwin(command.device));
      } else if (command.op === 'updateTwin') {
        tellTwin('updated', await client.updateTwin(command.device, command.patch, command.etag));
      } else if (command.op === 'feedback') {
        await receiveFeedback(client, command);
        say('receiving');
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
