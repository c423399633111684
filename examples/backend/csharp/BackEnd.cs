// A back end: sends one command to a device, and learns what became of it.
//
//     dotnet run -- DEVICE COMMAND [VALUE]
//
// SERVICE_CONNECTION_STRING is that of a policy with the right ServiceConnect, EVENTS_CONNECTION_STRING that of the
// hub's built-in endpoint ("Event Hub-compatible endpoint"). MESSAGE_ID is the id of a command that may have been sent
// before, to send it again; without it the command is a new one. It ends with 0 if the command succeeded.

using System.Text;
using System.Text.Json;
using Azure.Messaging.EventHubs;
using Azure.Messaging.EventHubs.Consumer;
using Microsoft.Azure.Devices;
using Microsoft.Azure.Devices.Common.Exceptions;

// How long the command may wait for the device. After that the hub drops it, and the gateway does not begin it.
var life = TimeSpan.FromMinutes(2);
// Feedback comes in batches, and so may be a while behind the end of the message.
var patience = life + TimeSpan.FromMinutes(1);
// How far the clocks of this machine and of the hub may be apart.
var clocks = TimeSpan.FromMinutes(5);
// How often a command is sent at most.
const int attempts = 3;

if (args.Length is < 2 or > 3)
{
    Console.Error.WriteLine("usage: DEVICE COMMAND [VALUE]");
    return 2;
}
string Variable(string name) =>
    Environment.GetEnvironmentVariable(name) ?? throw new InvalidOperationException($"{name} is not set");

// One id for each command, for ever: by it the gateway knows what comes twice.
var known = Environment.GetEnvironmentVariable("MESSAGE_ID");
var messageId = string.IsNullOrEmpty(known) ? Guid.NewGuid().ToString() : known;
var since = DateTimeOffset.UtcNow - clocks;
// Before it is sent: whoever is interrupted in between needs it.
Console.WriteLine($"message id {messageId}");
using var service = ServiceClient.CreateFromConnectionString(Variable("SERVICE_CONNECTION_STRING"));
await SendAsync(service, args[0], args[1], args.ElementAtOrDefault(2) ?? "", messageId);
Console.WriteLine("sent");
var feedback = await FeedbackOfAsync(service, messageId);
Console.WriteLine($"feedback: {feedback?.StatusCode.ToString() ?? "none in time"}");
using var result = await ResultOfAsync(Variable("EVENTS_CONNECTION_STRING"), messageId, since);
if (result is null)
{
    // The device or the gateway is away: look into the ledger before anything is sent again under another id.
    Console.WriteLine("result: none in time");
    return 1;
}
var status = result.RootElement.GetProperty("status").GetString();
var reason = result.RootElement.TryGetProperty("error", out var error)
    ? $" ({error.GetProperty("code").GetString()}: {error.GetProperty("message").GetString()})"
    : "";
Console.WriteLine($"result: {status}{reason}");
return status == "succeeded" ? 0 : 1;

// Sends a command. While nobody knows whether the hub has it, it is sent again: what has the same id is run once.
async Task SendAsync(ServiceClient client, string device, string command, string value, string id)
{
    var expires = DateTime.UtcNow + life;
    for (var attempt = 1; ; attempt++)
    {
        using var message = new Message(Encoding.UTF8.GetBytes(value))
        {
            MessageId = id,
            CorrelationId = "order-4711",
            ExpiryTimeUtc = expires,
            Ack = DeliveryAcknowledgement.Full,
        };
        message.Properties["command"] = command;
        try
        {
            await client.SendAsync(device, message);
            return;
        }
        catch (Exception error) when (attempt < attempts
            && (error is IotHubException { IsTransient: true } or TimeoutException))
        {
            Console.Error.WriteLine($"not sent, or nobody knows ({error.Message}); trying again");
            await Task.Delay(TimeSpan.FromSeconds(attempt));
        }
    }
}

// The hub's record of what became of the message, or null if there was none in time.
//
// Feedback is one queue for the whole hub. Where more than one waits for it, one process should take all of it, and
// tell each record to whoever waits. This one leaves alone what holds a record of anybody else's: its lock runs out
// within a minute. To give it back would be sooner, but the hub throws away what is given back ten times, and this SDK
// does not tell how often it was.
async Task<FeedbackRecord?> FeedbackOfAsync(ServiceClient client, string id)
{
    var receiver = client.GetFeedbackReceiver();
    var held = new List<FeedbackBatch>();
    FeedbackRecord? found = null;
    using var limit = new CancellationTokenSource(patience);
    try
    {
        while (found is null)
        {
            var batch = await receiver.ReceiveAsync(limit.Token);
            if (batch is null)
            {
                continue;
            }
            held.Add(batch);
            found = batch.Records.FirstOrDefault(one => one.OriginalMessageId == id);
        }
    }
    catch (Exception ended) when (ended is OperationCanceledException || limit.IsCancellationRequested)
    {
        // No feedback in time.
    }
    foreach (var batch in held)
    {
        if (batch.Records.All(one => one.OriginalMessageId == id))
        {
            await receiver.CompleteAsync(batch, CancellationToken.None);
        }
    }
    return found;
}

// The gateway's result event, which says what became of the command. Null if there was none in time.
async Task<JsonDocument?> ResultOfAsync(string events, string id, DateTimeOffset start)
{
    await using var client = new EventHubConsumerClient(EventHubConsumerClient.DefaultConsumerGroupName, events);
    using var limit = new CancellationTokenSource(patience);
    var readers = new List<Task<JsonDocument?>>();
    foreach (var partition in await client.GetPartitionIdsAsync(limit.Token))
    {
        readers.Add(ReadAsync(client, partition, id, EventPosition.FromEnqueuedTime(start), limit.Token));
    }
    JsonDocument? found = null;
    while (found is null && readers.Count > 0)
    {
        var ended = await Task.WhenAny(readers);
        readers.Remove(ended);
        found = await ended;
    }
    limit.Cancel();
    await Task.WhenAll(readers);
    return found;
}

async Task<JsonDocument?> ReadAsync(
    EventHubConsumerClient client, string partition, string id, EventPosition start, CancellationToken limit)
{
    try
    {
        await foreach (var received in client.ReadEventsFromPartitionAsync(partition, start, limit))
        {
            var data = received.Data;
            var isResult = data.Properties.TryGetValue("fieldbridge", out var kind) && kind as string == "command-result";
            // It may come twice; the first is as good as the second.
            if (isResult && data.CorrelationId == id)
            {
                return JsonDocument.Parse(data.EventBody.ToMemory());
            }
        }
    }
    catch (OperationCanceledException)
    {
        // Time is up, or another partition had it.
    }
    return null;
}
