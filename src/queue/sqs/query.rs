//! SQS's older protocol: what [`super::wire`] writes as a form, and what comes back as XML the way `wire` reads it. Pure.
//!
//! Lists are written as `AttributeName.1`, the entries of a batch as `DeleteMessageBatchRequestEntry.1.Id`; a list comes
//! back as elements side by side, a map as elements with a name and a value.
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-making-api-requests-xml.html>

use serde_json::{Map, Value};

use crate::aws::{Element, Form, Malformed, Query};

pub(super) const QUERY: Query = Query { form, answer };

/// The only version there is.
const VERSION: &str = "2012-11-05";

/// A request, as SQS's users of old wrote it: to the path of the queue, if one is meant.
fn form(action: &str, request: &[u8]) -> Option<Form> {
    let request: Map<String, Value> = serde_json::from_slice(request).ok()?;
    let path = match request.get("QueueUrl") {
        Some(url) => path(url.as_str()?),
        None => "/",
    };
    let mut form = Form { path: path.to_owned(), body: String::new() };
    form.push("Action", action);
    form.push("Version", VERSION);
    for (name, value) in &request {
        match (name.as_str(), value) {
            ("Entries", _) => put(&mut form, &format!("{action}RequestEntry"), value),
            (_, Value::Array(_)) => put(&mut form, name.strip_suffix('s')?, value),
            _ => put(&mut form, name, value),
        }
    }
    Some(form)
}

/// What follows the host of a URL.
fn path(url: &str) -> &str {
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    place.find('/').map_or("/", |start| &place[start..])
}

fn put(form: &mut Form, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => form.push(name, if *flag { "true" } else { "false" }),
        Value::Number(number) => form.push(name, &number.to_string()),
        Value::String(text) => form.push(name, text),
        Value::Array(items) => {
            items.iter().zip(1..).for_each(|(item, number)| put(form, &format!("{name}.{number}"), item));
        }
        Value::Object(fields) => fields.iter().for_each(|(field, value)| put(form, &format!("{name}.{field}"), value)),
    }
}

/// An answer, as the JSON protocol has it: what stands in `…Result`, or nothing where an action answers nothing.
fn answer(xml: &[u8]) -> Result<Vec<u8>, Malformed> {
    let root = Element::parse(xml)?;
    let result = root.children.iter().find(|child| child.name.ends_with("Result"));
    let mut answer = Map::new();
    for element in result.iter().flat_map(|result| &result.children) {
        match element.name.as_str() {
            "Message" => add(&mut answer, "Messages", structure(element)),
            "BatchResultErrorEntry" => add(&mut answer, "Failed", structure(element)),
            name if name.ends_with("ResultEntry") => add(&mut answer, "Successful", structure(element)),
            _ => member(&mut answer, element),
        }
    }
    Ok(Value::Object(answer).to_string().into_bytes())
}

fn add(answer: &mut Map<String, Value>, list: &str, item: Value) {
    if let Value::Array(items) = answer.entry(list).or_insert_with(|| Value::Array(Vec::new())) {
        items.push(item);
    }
}

fn structure(element: &Element) -> Value {
    let mut fields = Map::new();
    element.children.iter().for_each(|child| member(&mut fields, child));
    Value::Object(fields)
}

/// One field: a text, or an entry of the map of its kind.
fn member(fields: &mut Map<String, Value>, element: &Element) {
    let map = match element.name.as_str() {
        "Attribute" => "Attributes",
        "MessageAttribute" => "MessageAttributes",
        name => {
            fields.insert(name.to_owned(), Value::String(element.text.clone()));
            return;
        }
    };
    let (Some(name), Some(value)) = (element.child("Name"), element.child("Value")) else { return };
    let value = if value.children.is_empty() { Value::String(value.text.clone()) } else { structure(value) };
    if let Value::Object(entries) = fields.entry(map).or_insert_with(|| Value::Object(Map::new())) {
        entries.insert(name.text.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(action: &str, request: &Value) -> (String, String) {
        let form = form(action, request.to_string().as_bytes()).unwrap();
        (form.path, form.body)
    }

    fn read(xml: &str) -> Value {
        serde_json::from_slice(&answer(xml.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn requests_are_forms() {
        let url = "http://localhost:4566/000000000000/q";
        let receive = json!({"QueueUrl": url, "MaxNumberOfMessages": 10, "AttributeNames": ["A", "B"]});
        let (place, body) = written("ReceiveMessage", &receive);
        assert_eq!(place, "/000000000000/q");
        assert_eq!(
            body,
            "Action=ReceiveMessage&Version=2012-11-05&AttributeName.1=A&AttributeName.2=B&MaxNumberOfMessages=10\
             &QueueUrl=http%3A%2F%2Flocalhost%3A4566%2F000000000000%2Fq"
        );
        let send = json!({"Entries": [{"Id": "0", "MessageBody": "a b&\u{e9}"}, {"Id": "1", "MessageBody": ""}]});
        assert_eq!(
            written("SendMessageBatch", &send).1,
            "Action=SendMessageBatch&Version=2012-11-05&SendMessageBatchRequestEntry.1.Id=0\
             &SendMessageBatchRequestEntry.1.MessageBody=a%20b%26%C3%A9\
             &SendMessageBatchRequestEntry.2.Id=1&SendMessageBatchRequestEntry.2.MessageBody="
        );
        assert_eq!(written("GetQueueUrl", &json!({"QueueName": "q", "X": null})).0, "/");
        assert!(form("GetQueueUrl", b"[]").is_none());
        assert_eq!((path("http://a"), path("http://a/"), path("http://a/b/c")), ("/", "/", "/b/c"));
    }

    #[test]
    fn answers_are_json() {
        let messages = "<?xml version='1.0'?><ReceiveMessageResponse xmlns='http://queue.amazonaws.com/doc/2012-11-05/'>\
            <ReceiveMessageResult><Message><MessageId>m</MessageId><ReceiptHandle>h</ReceiptHandle>\
            <Body>{&quot;a&quot;: 1}\r\n</Body><Attribute><Name>SentTimestamp</Name><Value>7</Value></Attribute>\
            <Attribute><Name>SenderId</Name><Value/></Attribute>\
            <MessageAttribute><Name>id</Name><Value><StringValue>e-1</StringValue><DataType>String</DataType></Value>\
            </MessageAttribute></Message><Message><MessageId>n</MessageId></Message></ReceiveMessageResult>\
            <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></ReceiveMessageResponse>";
        let expected = json!({"Messages": [
            {"MessageId": "m", "ReceiptHandle": "h", "Body": "{\"a\": 1}\r\n",
             "Attributes": {"SentTimestamp": "7", "SenderId": ""},
             "MessageAttributes": {"id": {"StringValue": "e-1", "DataType": "String"}}},
            {"MessageId": "n"}]});
        assert_eq!(read(messages), expected);
        let batch = "<R><DeleteMessageBatchResult><DeleteMessageBatchResultEntry><Id>0</Id></DeleteMessageBatchResultEntry>\
            <BatchResultErrorEntry><Id>1</Id><Code>InternalError</Code><Message>no</Message></BatchResultErrorEntry>\
            </DeleteMessageBatchResult></R>";
        let failed = json!([{"Id": "1", "Code": "InternalError", "Message": "no"}]);
        assert_eq!(read(batch), json!({"Successful": [{"Id": "0"}], "Failed": failed}));
        assert_eq!(
            read("<R><GetQueueUrlResult><QueueUrl>u</QueueUrl></GetQueueUrlResult></R>"),
            json!({"QueueUrl": "u"})
        );
        let attributes = "<R><GetQueueAttributesResult><Attribute><Name>A</Name><Value>1</Value></Attribute>\
            <Attribute><Value>2</Value></Attribute></GetQueueAttributesResult></R>";
        assert_eq!(read(attributes), json!({"Attributes": {"A": "1"}}));
        assert_eq!(read("<R><ResponseMetadata/></R>"), json!({}));
        assert!(answer(b"{}").is_err());
    }
}
