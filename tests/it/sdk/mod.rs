//! The lean client against the AWS SDK: the same calls, good and bad, to the local queue and to moto's server, by both;
//! answers and errors must be the same. [`call`] puts the SDK behind the words of the protocol.

mod call;

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use masq::{
    aws::{AwsClient, AwsError, AwsSettings, Operation, Service},
    local::sqs::SqsServer,
    queue::{
        Queue, Receipt,
        memory::MemoryQueues,
        room::Room,
        sqs::{Outgoing, Sent, SqsQueue, SqsSettings},
    },
};
use serde_json::{Value, json};

use self::call::Sdk;
use crate::support::{environment, moto};

const SQS: Service = Service {
    name: "sqs",
    target: "AmazonSQS",
    content_type: "application/x-amz-json-1.0",
    endpoint_variable: "AWS_ENDPOINT_URL_SQS",
    query: None,
};

/// Both clients of one server.
struct Sides {
    endpoint: String,
    ours: AwsClient,
    theirs: Sdk,
    /// The local one, which ends with its handle.
    _server: Option<SqsServer>,
}

impl Sides {
    async fn of(endpoint: String, server: Option<SqsServer>) -> Self {
        let settings = AwsSettings { endpoint: Some(endpoint.clone()), ..AwsSettings::default() };
        let ours = AwsClient::connect(SQS, settings, &environment).await.unwrap();
        Self { ours, theirs: Sdk::new(&endpoint), endpoint, _server: server }
    }

    /// On the local queue and on moto's server.
    async fn both() -> [Self; 2] {
        let server = SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), MemoryQueues::new()).await.unwrap();
        let local = Self::of(server.endpoint().to_owned(), Some(server)).await;
        [local, Self::of(moto().await.to_owned(), None).await]
    }

    /// What our client answers, as the SDK's is written down: an error is its code.
    async fn ours(&self, action: &'static str, request: &Value) -> Value {
        let operation = Operation { action, timeout: Duration::from_secs(10), repeatable: false };
        match self.ours.call(operation, request.to_string().into()).await {
            Ok(answer) => serde_json::from_slice(&answer).unwrap(),
            Err(
                AwsError::NotFound { code }
                | AwsError::Rejected { code, .. }
                | AwsError::Denied { code, .. }
                | AwsError::Server { code, .. }
                | AwsError::Throttled { code },
            ) => json!({ "error": code }),
            Err(other) => panic!("{action}: {other}"),
        }
    }

    async fn queue(&self, url: &str) -> SqsQueue {
        let (queue, endpoint) = (url.to_owned(), Some(self.endpoint.clone()));
        SqsQueue::connect(SqsSettings { queue, endpoint, ..SqsSettings::default() }, &environment).await.unwrap()
    }
}

/// Errors that have another name in the header, which the SDK prefers, than in the body.
const OTHER_NAMES: [(&str, &str); 2] =
    [("NonExistentQueue", "QueueDoesNotExist"), ("InvalidParameterValue", "InvalidParameterValueException")];

/// What is the same whoever asks: without handles, ids and digests that the server makes up anew, and without texts, of
/// which the SDK keeps its own.
fn comparable(mut answer: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for made_up in ["ReceiptHandle", "MD5OfMessageBody", "SequenceNumber", "Message"] {
                    fields.remove(made_up);
                }
                if fields.contains_key("MD5OfBody") {
                    fields.remove("MD5OfMessageAttributes");
                } else {
                    fields.remove("MessageId");
                }
                if let Some(attributes) = fields.get_mut("Attributes").and_then(Value::as_object_mut) {
                    attributes.remove("ApproximateReceiveCount");
                }
                fields.retain(|_, value| !value.is_null() && *value != json!([]));
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    for (in_the_header, in_the_body) in OTHER_NAMES {
        if answer["error"] == in_the_header {
            answer["error"] = json!(in_the_body);
        }
    }
    strip(&mut answer);
    answer
}

/// Calls that change nothing that the next one would see, on a queue with three messages. `BAD` is a handle of none.
fn calls(url: &str, name: &str) -> Vec<(&'static str, Value)> {
    let nowhere = url.replace(name, "no-such-queue");
    let handles = |handle: &str, ids: &[&str]| -> Value {
        ids.iter().map(|id| json!({"Id": id, "ReceiptHandle": handle, "VisibilityTimeout": 0})).collect()
    };
    let bodies = |bodies: &[&str]| -> Value {
        bodies.iter().enumerate().map(|(id, body)| json!({"Id": id.to_string(), "MessageBody": body})).collect()
    };
    let eleven: Vec<String> = (0..11).map(|id| id.to_string()).collect();
    let eleven: Vec<&str> = eleven.iter().map(String::as_str).collect();
    let (half, bad) = ("x".repeat(600_000), "BAD");
    let peek = |more: Value| {
        let mut request = json!({"QueueUrl": url, "VisibilityTimeout": 0, "MaxNumberOfMessages": 10,
            "AttributeNames": ["SentTimestamp", "ApproximateReceiveCount"],
            "MessageSystemAttributeNames": ["SentTimestamp", "ApproximateReceiveCount"]});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    vec![
        ("GetQueueUrl", json!({"QueueName": name})),
        ("GetQueueUrl", json!({"QueueName": "no-such-queue"})),
        ("GetQueueAttributes", json!({"QueueUrl": url, "AttributeNames": ["All"]})),
        ("GetQueueAttributes", json!({"QueueUrl": url, "AttributeNames": ["QueueArn", "VisibilityTimeout"]})),
        ("GetQueueAttributes", json!({"QueueUrl": url, "AttributeNames": ["NoSuchAttribute"]})),
        ("GetQueueAttributes", json!({"QueueUrl": nowhere, "AttributeNames": ["All"]})),
        ("ReceiveMessage", peek(json!({}))),
        ("ReceiveMessage", peek(json!({"MessageAttributeNames": ["event"]}))),
        ("ReceiveMessage", peek(json!({"MaxNumberOfMessages": 11}))),
        ("ReceiveMessage", peek(json!({"MaxNumberOfMessages": 0}))),
        ("ReceiveMessage", peek(json!({"WaitTimeSeconds": 21}))),
        ("ReceiveMessage", peek(json!({"VisibilityTimeout": 43_201}))),
        ("ReceiveMessage", peek(json!({"QueueUrl": nowhere}))),
        ("SendMessageBatch", json!({"QueueUrl": url, "Entries": bodies(&[&half, &half])})),
        ("SendMessageBatch", json!({"QueueUrl": url, "Entries": []})),
        ("SendMessageBatch", json!({"QueueUrl": nowhere, "Entries": bodies(&["x"])})),
        ("DeleteMessageBatch", json!({"QueueUrl": url, "Entries": handles(bad, &["a", "b"])})),
        ("DeleteMessageBatch", json!({"QueueUrl": url, "Entries": handles(bad, &["a", "a"])})),
        ("DeleteMessageBatch", json!({"QueueUrl": url, "Entries": []})),
        ("DeleteMessageBatch", json!({"QueueUrl": url, "Entries": handles(bad, &eleven)})),
        ("DeleteMessageBatch", json!({"QueueUrl": nowhere, "Entries": handles(bad, &["a"])})),
        ("ChangeMessageVisibilityBatch", json!({"QueueUrl": url, "Entries": handles(bad, &["a", "b"])})),
        ("ChangeMessageVisibilityBatch", json!({"QueueUrl": url, "Entries": handles(bad, &eleven)})),
        ("ChangeMessageVisibilityBatch", json!({"QueueUrl": nowhere, "Entries": handles(bad, &["a"])})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clients_get_the_same_answers_and_errors() {
    for sides in Sides::both().await {
        let url = sides.theirs.create("differential").await;
        let odd = "<a>&amp; \"'\\ \u{e9}\u{1f600} \t\r\n]]>";
        let entries = ["one", odd, "{\"a\": 1}"];
        let entries = entries.iter().enumerate().map(|(id, body)| {
            json!({"Id": id.to_string(), "MessageBody": body,
            "MessageAttributes": {"event": {"DataType": "String", "StringValue": "e-1"}}})
        });
        let send = json!({"QueueUrl": url, "Entries": entries.collect::<Value>()});
        assert_eq!(sides.theirs.call("SendMessageBatch", &send).await["Successful"].as_array().unwrap().len(), 3);

        let (mut errors, mut partial) = (BTreeSet::new(), 0);
        for (action, request) in calls(&url, "differential") {
            let ours = comparable(sides.ours(action, &request).await);
            let theirs = comparable(sides.theirs.call(action, &request).await);
            assert_eq!(ours, theirs, "{} {action} {:.200}", sides.endpoint, request.to_string());
            errors.extend(ours["error"].as_str().map(str::to_owned));
            partial += ours["Failed"].as_array().map_or(0, Vec::len);
        }
        // What was compared was worth comparing.
        assert!(errors.len() >= 5 && partial >= 4, "{errors:?} {partial}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_client_does_the_other_sees() {
    for sides in Sides::both().await {
        let url = sides.theirs.create("turns").await;
        let (queue, room) = (sides.queue(&url).await, Room::new(1 << 30));
        let receive = json!({"QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 60,
            "AttributeNames": ["All"], "MessageSystemAttributeNames": ["All"]});

        // Ours sends; theirs receives; ours extends and deletes by their handles, one of which is none.
        let sent = queue.send(&["a".into(), Outgoing::from("\u{e9} <&>")]).await.unwrap();
        let [Sent::Accepted(first), Sent::Accepted(second)] = &sent[..] else { panic!("{sent:?}") };
        let received = sides.theirs.call("ReceiveMessage", &receive).await;
        let messages = received["Messages"].as_array().unwrap();
        let ids: BTreeSet<&str> = messages.iter().map(|one| one["MessageId"].as_str().unwrap()).collect();
        assert_eq!(ids, BTreeSet::from([first.as_str(), second]));
        let mut receipts: Vec<Receipt> =
            messages.iter().map(|one| Receipt(one["ReceiptHandle"].as_str().unwrap().into())).collect();
        receipts.insert(1, Receipt("BAD".into()));
        assert_eq!(queue.extend(&receipts, Duration::from_secs(90)).await.unwrap(), [1]);
        assert_eq!(queue.delete(&receipts).await.unwrap(), [1]);

        // Theirs sends; ours receives what it says; theirs deletes by our handle; nothing is left.
        let entries = json!([{"Id": "0", "MessageBody": "{\"b\": 2}\r\n"}]);
        let sent = sides.theirs.call("SendMessageBatch", &json!({"QueueUrl": url, "Entries": entries})).await;
        let id = sent["Successful"][0]["MessageId"].as_str().unwrap();
        let ours = queue.receive(Duration::from_secs(1), Duration::from_secs(0), &room).await.unwrap();
        let theirs = sides.theirs.call("ReceiveMessage", &receive).await;
        let seen = &theirs["Messages"][0];
        assert_eq!((ours.len(), ours[0].key.id.to_string(), &seen["MessageId"]), (1, id.to_owned(), &json!(id)));
        assert_eq!(seen["Body"].as_str().unwrap().as_bytes(), ours[0].body.expose().as_slice());
        assert_eq!(seen["Attributes"]["SentTimestamp"], ours[0].key.sent_at.to_string());
        assert_eq!((ours[0].attempt, &seen["Attributes"]["ApproximateReceiveCount"]), (1, &json!("2")));
        let entries = json!([{"Id": "0", "ReceiptHandle": seen["ReceiptHandle"]}]);
        let deleted = sides.theirs.call("DeleteMessageBatch", &json!({"QueueUrl": url, "Entries": entries})).await;
        assert_eq!(deleted["Successful"], json!([{"Id": "0"}]));
        let depth = queue.depth().await.unwrap();
        assert_eq!((depth.visible, depth.in_flight), (0, 0), "{}", sides.endpoint);
    }
}
