//! The queue against a scripted server: what it sends, and what it makes of whole, odd and failing answers.

use std::time::Instant;

use serde_json::json;

use super::*;
use crate::aws::stub::{Step, Stub, environment};

const ID: &str = "11111111-2222-3333-4444-555555555555";

async fn queue(stub: &Stub) -> SqsQueue {
    let settings = SqsSettings { queue: format!("{}/000000000000/login-queue", stub.url), ..SqsSettings::default() };
    SqsQueue::connect(settings, &environment).await.unwrap()
}

/// The stub's answers, and the queue in front of it.
async fn with(steps: impl IntoIterator<Item = Step>) -> (Stub, SqsQueue) {
    let stub = Stub::start(steps).await;
    let queue = queue(&stub).await;
    (stub, queue)
}

fn receipts(count: usize) -> Vec<Receipt> {
    (0..count).map(|n| Receipt(format!("handle-{n}").into())).collect()
}

fn done(ids: impl IntoIterator<Item = usize>) -> Step {
    let ids: Vec<String> = ids.into_iter().map(|id| format!(r#"{{"Id":"{id}"}}"#)).collect();
    Step::ok(&format!(r#"{{"Successful":[{}]}}"#, ids.join(",")))
}

async fn receive(queue: &SqsQueue) -> Result<Vec<Message>, QueueError> {
    queue.receive(Duration::ZERO, Duration::from_secs(30), &Room::new(1 << 20)).await
}

#[tokio::test]
async fn a_delivery_is_read_whole() {
    let answer = format!(
        r#"{{"Messages":[{{"MessageId":"{ID}","ReceiptHandle":"h","Body":"hello","MD5OfBody":"5d41402abc4b2a76b9719d911017c592",
        "Attributes":{{"SentTimestamp":"1700000000123","ApproximateReceiveCount":"3","SenderId":"x"}}}}]}}"#
    );
    let (stub, queue) = with([Step::ok(&answer)]).await;
    let got =
        queue.receive(Duration::from_millis(20_900), Duration::from_millis(1500), &Room::new(1 << 20)).await.unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].key, Key::new("login-queue", ID, 1_700_000_000_123));
    assert_eq!((got[0].attempt, &*got[0].receipt.0), (3, "h"));
    let request: serde_json::Value = serde_json::from_str(&stub.seen()[0].body).unwrap();
    let names = serde_json::json!(["SentTimestamp", "ApproximateReceiveCount"]);
    assert_eq!(
        request,
        serde_json::json!({"QueueUrl": queue.url(), "MaxNumberOfMessages": 10, "WaitTimeSeconds": 20,
            "VisibilityTimeout": 2, "MessageSystemAttributeNames": names, "AttributeNames": names})
    );
}

#[tokio::test]
async fn a_fifo_queue_says_each_messages_place() {
    let message = |attributes: &str| {
        format!(r#"{{"MessageId":"{ID}","ReceiptHandle":"h","Body":"x","Attributes":{{{attributes}}}}}"#)
    };
    let placed = message(r#""MessageGroupId":"alice","SequenceNumber":"18849496460467696128""#);
    let odd = message(r#""MessageGroupId":"alice""#);
    let stub = Stub::start([Step::ok(&format!(r#"{{"Messages":[{placed},{odd}]}}"#))]).await;
    let settings = SqsSettings { queue: format!("{}/0/login-queue.fifo", stub.url), ..SqsSettings::default() };
    let queue = SqsQueue::connect(settings, &environment).await.unwrap();
    let got = receive(&queue).await.unwrap();
    let places: Vec<_> = got.iter().map(|message| message.place).collect();
    assert_eq!(places, [Some(Place::new("alice", 18_849_496_460_467_696_128)), None]);
    let request: serde_json::Value = serde_json::from_str(&stub.seen()[0].body).unwrap();
    let names = serde_json::json!(["SentTimestamp", "ApproximateReceiveCount", "MessageGroupId", "SequenceNumber"]);
    assert_eq!(request["MessageSystemAttributeNames"], names);
}

#[tokio::test]
async fn the_producers_own_id_is_text_or_there_is_none() {
    let cases = [
        (r#"{"id":{"DataType":"String","StringValue":"e-1"}}"#, Some("e-1")),
        (
            r#"{"id":{"DataType":"String.uuid","StringValue":"\u00e9"},"other":{"DataType":"Binary","BinaryValue":"AA=="}}"#,
            Some("é"),
        ),
        (r#"{"id":{"DataType":"Number","StringValue":"17"}}"#, Some("17")),
        (r#"{"id":{"DataType":"Binary","BinaryValue":"AA=="}}"#, None),
        (r#"{"id":{"DataType":"Binary","StringValue":"e-1"}}"#, None),
        (r#"{"id":{"DataType":"String","StringValue":""}}"#, None),
        (r#"{"id":{"DataType":"String","StringValue":7}}"#, None),
        (r#"{"id":{"DataType":"String","StringValue":"\ud801"}}"#, None),
        (r#"{"ID":{"DataType":"String","StringValue":"e-1"}}"#, None),
        (r#"[7]"#, None),
        ("null", None),
    ];
    let messages: Vec<String> = cases
        .iter()
        .map(|(attributes, _)| {
            format!(r#"{{"MessageId":"{ID}","ReceiptHandle":"h","Body":"x","MessageAttributes":{attributes}}}"#)
        })
        .collect();
    // The second time with a neighbour for whose sake all are read one by one.
    let whole = format!(r#"{{"Messages":[{}]}}"#, messages.join(","));
    let odd = whole.replacen('[', r#"[{"Body":7},"#, 1);
    let (stub, queue) = with([Step::ok(&whole), Step::ok(&odd), Step::ok(&whole)]).await;
    let with_id = queue.with_event_attribute("id");
    for _ in 0..2 {
        let got = receive(&with_id).await.unwrap();
        let found: Vec<Option<String>> = got.into_iter().map(|it| it.event_id.map(|id| id.expose().clone())).collect();
        assert_eq!(found, cases.map(|(_, id)| id.map(str::to_owned)));
    }
    assert!(receive(&queue).await.unwrap().iter().all(|message| message.event_id.is_none()));
    let request = |at: usize| serde_json::from_str::<serde_json::Value>(&stub.seen()[at].body).unwrap();
    assert_eq!(request(0)["MessageAttributeNames"], serde_json::json!(["id"]));
    assert_eq!(request(2).get("MessageAttributeNames"), None);
}

#[tokio::test]
async fn a_message_on_a_dead_letter_queue_has_the_key_that_it_had_before_it_was_moved() {
    let answer = r#"{"Messages":[
        {"MessageId":"odd-1","ReceiptHandle":"1","Attributes":{"SentTimestamp":"7",
            "DeadLetterQueueSourceArn":"arn:aws:sqs:eu-west-1:000000000000:orders"}},
        {"MessageId":"odd-1","ReceiptHandle":"2","Attributes":{"SentTimestamp":"7"}}]}"#;
    let (stub, queue) = with([Step::ok(answer), Step::ok(answer)]).await;
    let keys =
        async |queue: &SqsQueue| receive(queue).await.unwrap().iter().map(|message| message.key).collect::<Vec<_>>();
    let key = |queue| Key::new(queue, "odd-1", 7);
    assert_eq!(keys(&queue).await, [key("login-queue"); 2]);
    assert_eq!(keys(&queue.clone().redriven_from("payments")).await, [key("orders"), key("payments")]);
    let asked = stub.seen().iter().map(|seen| seen.body.contains("DeadLetterQueueSourceArn")).collect::<Vec<_>>();
    assert_eq!(asked, [false, true]);
}

#[tokio::test]
async fn a_peek_hides_nothing_and_asks_for_no_more_than_it_shows() {
    let (stub, queue) = with([Step::ok("{}")]).await;
    assert!(queue.peek(3, Duration::from_secs(1)).await.unwrap().is_empty());
    let request: serde_json::Value = serde_json::from_str(&stub.seen()[0].body).unwrap();
    let asked = ["MaxNumberOfMessages", "WaitTimeSeconds", "VisibilityTimeout"].map(|name| request[name].as_u64());
    assert_eq!(asked, [Some(3), Some(1), Some(0)]);
}

#[tokio::test]
async fn nothing_there_is_no_error() {
    let (_stub, queue) = with([Step::ok("{}"), Step::ok(r#"{"Messages":null}"#), Step::ok(r#"{"Messages":[]}"#)]).await;
    for _ in 0..3 {
        assert!(receive(&queue).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_odd_message_does_not_hide_its_neighbours() {
    let odd = r#"{"Messages":[
        {"MessageId":"a","ReceiptHandle":"1","Body":"x"},
        {"ReceiptHandle":"2","Body":"no id"},
        {"MessageId":"no handle","Body":"x"},
        {"MessageId":"d","ReceiptHandle":"4","Body":"\ud801 alone","MD5OfBody":"00"},
        {"MessageId":"e","ReceiptHandle":"5","Attributes":{"SentTimestamp":"soon","ApproximateReceiveCount":2}}]}"#;
    let worse = odd.replace(r#""Body":"no id""#, r#""Body":7"#);
    let worst = odd.replace(r#""MD5OfBody":"00""#, r#""MD5OfBody":"\ud801""#);
    let (_stub, queue) = with([Step::ok(odd), Step::ok(&worse), Step::ok(&worst)]).await;
    let got = receive(&queue).await.unwrap();
    assert_eq!(got.iter().map(|m| &*m.receipt.0).collect::<Vec<_>>(), ["1", "4", "5"]);
    assert_eq!((got[2].key.sent_at, got[2].attempt), (0, 2));
    assert_eq!(got[0].attempt, 1);
    let got = receive(&queue).await.unwrap();
    assert_eq!(got.iter().map(|m| &*m.receipt.0).collect::<Vec<_>>(), ["1", "4", "5"]);
    let got = receive(&queue).await.unwrap();
    assert_eq!(got.iter().map(|m| &*m.receipt.0).collect::<Vec<_>>(), ["1", "5"]);
}

#[test]
fn bodies_come_as_bytes() {
    let read = |body: &str| {
        let answer = format!(r#"{{"Messages":[{{"MessageId":"a","ReceiptHandle":"1","Body":{body}}}]}}"#);
        wire::messages(answer.as_bytes()).unwrap().remove(0).body
    };
    assert_eq!(read(r#""plain""#), b"plain");
    assert_eq!(read(r#""\u0000\"\u00e9\ud83d\ude00""#), "\0\"é😀".as_bytes());
    assert_eq!(read(r#""\ud801""#), b"\xED\xA0\x81");
    assert_eq!(read(r#""""#), b"");
}

#[tokio::test]
async fn a_damaged_body_is_left_out_and_counted() {
    let answer = r#"{"Messages":[
        {"MessageId":"a","ReceiptHandle":"1","Body":"hello","MD5OfBody":"00000000000000000000000000000000"},
        {"MessageId":"b","ReceiptHandle":"2","Body":"hello","MD5OfBody":"5D41402ABC4B2A76B9719D911017C592"}]}"#;
    let (_stub, queue) = with([Step::ok(answer)]).await;
    let got = receive(&queue).await.unwrap();
    assert_eq!(got.iter().map(|m| &*m.receipt.0).collect::<Vec<_>>(), ["2"]);
    assert_eq!(queue.corrupt(), 1);
}

#[test]
fn a_poll_is_given_up_five_seconds_after_its_wait() {
    assert_eq!(poll(Duration::from_secs(20)).timeout, Duration::from_secs(25));
    assert_eq!(poll(Duration::ZERO).timeout, Duration::from_secs(5));
}

#[tokio::test]
async fn what_was_not_deleted_is_said_by_position() {
    let failed =
        r#"{"Successful":[{"Id":"0"},{"Id":"2"}],"Failed":[{"Id":"1","Code":"InternalError","SenderFault":false}]}"#;
    let (stub, queue) = with([Step::ok(failed)]).await;
    assert_eq!(queue.delete(&receipts(4)).await.unwrap(), [1, 3], "entry 3 was not mentioned");
    let entries = r#""Entries":[{"Id":"0","ReceiptHandle":"handle-0"},{"Id":"1","ReceiptHandle":"handle-1"}"#;
    assert!(stub.seen()[0].body.contains(entries), "{}", stub.seen()[0].body);

    let odd = [
        r#"{"Successful":[{"Id":"0"},{"Id":"1"}],"Failed":null}"#,
        r#"{"Successful":[{"Id":"0"},{"Id":"1"},{"Id":"1"},{"Id":"9"},{"Id":"x"},{"Id":null}]}"#,
        r#"{"Successful":null,"Failed":[{"Id":null,"Code":null}]}"#,
    ];
    let (_stub, queue) = with(odd.map(Step::ok)).await;
    assert!(queue.delete(&receipts(2)).await.unwrap().is_empty());
    assert_eq!(queue.delete(&receipts(3)).await.unwrap(), [2]);
    assert_eq!(queue.delete(&receipts(1)).await.unwrap(), [0]);
}

#[tokio::test]
async fn batches_go_in_tens_at_once() {
    let (stub, queue) = with((0..3).map(|_| done(0..9))).await;
    let undone = queue.extend(&receipts(25), Duration::from_secs(60)).await.unwrap();
    let seen = stub.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.body.contains(r#""VisibilityTimeout":60"#)));
    assert_eq!(undone, [9, 19]);
    assert!(queue.delete(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_request_that_fails_is_ten_entries_undone() {
    let (stub, queue) = with([done(0..10), Step::error(500, "InternalFailure", ""), done(0..10)]).await;
    let undone = queue.delete(&receipts(30)).await.unwrap();
    assert_eq!(undone, (undone[0]..undone[0] + 10).collect::<Vec<_>>());
    assert_eq!(stub.seen().len(), 3, "nothing is repeated here");

    let (_stub, queue) = with([Step::error(500, "InternalFailure", "")]).await;
    assert!(matches!(queue.delete(&receipts(1)).await, Err(QueueError::Unavailable { .. })));
    let (_stub, queue) = with([Step::error(403, "AccessDenied", "")]).await;
    let error = queue.delete(&receipts(1)).await.unwrap_err();
    assert!(matches!(error, QueueError::Denied { action: "DeleteMessageBatch", .. }), "{error}");
    assert!(error.to_string().contains("sqs:DeleteMessage "), "{error}");
}

#[tokio::test]
async fn a_service_that_asks_for_fewer_requests_gets_no_more_of_them() {
    let throttled = || Step::error(400, "RequestThrottled", "");
    // Under way at once are 8 at least and 64 at most; the one that succeeds may be heard of before the others or after.
    let (stub, queue) = with([done(0..10)].into_iter().chain((0..127).map(|_| throttled()))).await;
    let undone = queue.delete(&receipts(128 * BATCH)).await.unwrap();
    assert_eq!(undone.len(), 127 * BATCH);
    assert!((8..=1 + 64).contains(&stub.seen().len()), "{}", stub.seen().len());

    let (_stub, queue) = with([throttled()]).await;
    let error = queue.delete(&receipts(1)).await.unwrap_err();
    assert!(matches!(error, QueueError::Unavailable { cause: Cause::Throttled, .. }), "{error}");
}

#[tokio::test]
async fn a_queue_that_is_not_there_yet_is_waited_for() {
    let (_stub, queue) = with([Step::error(400, "QueueDoesNotExist", "no")]).await;
    let error = queue.depth().await.unwrap_err();
    assert!(matches!(error, QueueError::Unavailable { cause: Cause::Missing, .. }), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_no_json_shows_nothing_of_itself() {
    let (_stub, queue) = with([Step::ok(r#"{"Messages":[{"Body":"secret"#)]).await;
    let error = receive(&queue).await.err().unwrap();
    assert!(matches!(error, QueueError::Unavailable { .. }) && !format!("{error:?}").contains("secret"), "{error}");
}

#[tokio::test]
async fn what_a_queue_is_set_to() {
    let answer = r#"{"Attributes":{"ApproximateNumberOfMessages":"7","ApproximateNumberOfMessagesNotVisible":"2",
        "ApproximateNumberOfMessagesDelayed":"1","MessageRetentionPeriod":"345600","VisibilityTimeout":"30",
        "QueueArn":"arn:aws:sqs:eu-west-1:1:q.fifo","FifoQueue":"true",
        "RedrivePolicy":"{\"deadLetterTargetArn\":\"arn:aws:sqs:eu-west-1:1:dead\",\"maxReceiveCount\":\"5\"}"}}"#;
    let (_stub, queue) = with([Step::ok(answer), Step::ok(answer), Step::ok("{}")]).await;
    let found = queue.attributes().await.unwrap();
    assert_eq!(found.retention, Some(Duration::from_secs(345_600)));
    assert_eq!(found.visibility, Some(Duration::from_secs(30)));
    assert_eq!(found.arn, "arn:aws:sqs:eu-west-1:1:q.fifo");
    assert!(found.fifo);
    let dead_letter_arn = "arn:aws:sqs:eu-west-1:1:dead".to_owned();
    assert_eq!(found.redrive, Some(Redrive { dead_letter_arn, max_receive_count: 5 }));
    assert_eq!(queue.depth().await.unwrap(), Depth { visible: 7, in_flight: 2, delayed: 1 });
    let plain = queue.attributes().await.unwrap();
    assert_eq!((plain.redrive, plain.fifo, plain.retention), (None, false, None));
}

#[tokio::test]
async fn sending_says_what_became_of_each() {
    let answer =
        r#"{"Successful":[{"Id":"1","MessageId":"m1"}],"Failed":[{"Id":"0","Code":"InvalidMessageContents"}]}"#;
    let (stub, queue) = with([Step::ok(answer)]).await;
    let sent = queue.send(&["\u{1}".into(), "{\"a\":1}".into()]).await.unwrap();
    assert_eq!(sent, [Sent::Refused("InvalidMessageContents".to_owned()), Sent::Accepted("m1".to_owned())]);
    assert!(stub.seen()[0].body.contains(r#"{"Id":"1","MessageBody":"{\"a\":1}"}"#), "{}", stub.seen()[0].body);
}

#[tokio::test]
async fn a_group_goes_with_every_message() {
    let (stub, queue) = with([done(0..1)]).await;
    let group = Some(Group { id: "g", deduplication_id: "d" });
    queue.send(&[Outgoing { body: "x", group }]).await.unwrap();
    let entry = r#"{"Id":"0","MessageBody":"x","MessageGroupId":"g","MessageDeduplicationId":"d"}"#;
    assert!(stub.seen()[0].body.contains(entry), "{}", stub.seen()[0].body);
}

#[tokio::test]
async fn a_bare_name_is_looked_up() {
    let stub = Stub::start([Step::ok(r#"{"QueueUrl":"http://elsewhere/1/login-queue"}"#), Step::ok("{}")]).await;
    let (queue, endpoint) = ("login-queue".to_owned(), Some(stub.url.clone()));
    let settings = SqsSettings { queue, endpoint, ..SqsSettings::default() };
    let queue = SqsQueue::connect(settings, &environment).await.unwrap();
    assert_eq!((queue.url(), queue.name()), ("http://elsewhere/1/login-queue", "login-queue"));
    queue.depth().await.unwrap();
    let seen = stub.seen();
    assert_eq!(seen[0].header("x-amz-target"), "AmazonSQS.GetQueueUrl");
    assert_eq!(seen[0].body, r#"{"QueueName":"login-queue"}"#);
    assert!(seen[1].body.contains("http://elsewhere/1/login-queue"));
}

#[tokio::test]
async fn without_keys_a_local_endpoint_gets_dummies() {
    let stub = Stub::start([Step::ok("{}")]).await;
    let settings = SqsSettings { queue: format!("{}/0/q", stub.url), ..SqsSettings::default() };
    let nothing = |name: &str| (name == "AWS_PROFILE").then(|| "no-such-profile".to_owned());
    let start = Instant::now();
    let queue = SqsQueue::connect(settings, &nothing).await.unwrap();
    receive(&queue).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "no metadata service is waited for");
    let authorization = stub.seen()[0].header("authorization").to_owned();
    assert!(authorization.contains("Credential=test/"), "{authorization}");
}

/// The door of the fuzz target stands open in this build, too.
#[test]
fn an_answer_may_be_anything() {
    let messages = format!(r#"{{"Messages":[{{"MessageId":"{ID}","ReceiptHandle":"h","Body":"\ud800"}},7,null]}}"#);
    let bodies = [
        "",
        "{}",
        "null",
        "[",
        "\u{0}",
        "<a/>",
        "<R><XResult><Message/></XResult></R>",
        r#"{"Failed":[{"Id":"0"}],"Successful":[{"Id":"0"},{"Id":"0"}]}"#,
        &messages,
    ];
    for status in [0, 100, 200, 400, 403, 429, 500, 599, 1000, u16::MAX] {
        for error_type in ["", "OverLimit", "a.b#c;d:e", "Sun, 06 Nov 1994 08:49:37 GMT", "\n", "é"] {
            bodies.iter().for_each(|body| fuzz::read_answer(status, error_type, body.as_bytes()));
        }
    }
}

#[test]
fn handles_are_written_as_a_serialiser_would_write_them() {
    let url = "http://a/\"q\"";
    for handles in [&["AQEB+/=", "q\"uote", "back\\slash", "line\n", "\u{7f}é\u{1f600}", ""][..], &["one"], &[]] {
        for visibility in [None, Some(43_200)] {
            let entries = handles.iter().zip(wire::IDS).map(|(handle, id)| match visibility {
                Some(seconds) => json!({"Id": id, "ReceiptHandle": handle, "VisibilityTimeout": seconds}),
                None => json!({"Id": id, "ReceiptHandle": handle}),
            });
            let expected = json!({"QueueUrl": url, "Entries": entries.collect::<Vec<_>>()});
            let written = wire::batch_of(url, handles.iter().copied(), visibility);
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&written).unwrap(), expected);
        }
    }
}
