//! The AWS SDK, called by the names and the JSON of the protocol: what it answers is written down again as JSON. It has a
//! builder for every call, so that what is left out here would be left out of the comparison.

use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, Builder, Credentials, Region, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
        MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry,
    },
};
use serde_json::{Map, Value, json};

pub(super) struct Sdk(Client);

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn number(value: &Value) -> Option<i32> {
    value.as_i64().map(|number| number.try_into().unwrap())
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn names<T: for<'a> From<&'a str>>(value: &Value) -> Option<Vec<T>> {
    value.as_array().map(|names| names.iter().map(|name| T::from(name.as_str().unwrap())).collect())
}

/// The code of an error, without the namespace of the older protocol's.
fn code<E: ProvideErrorMetadata + std::fmt::Debug, R: std::fmt::Debug>(error: SdkError<E, R>) -> Value {
    let SdkError::ServiceError(error) = error else { panic!("{error:?}") };
    json!({ "error": error.err().code().unwrap().rsplit('.').next().unwrap() })
}

impl Sdk {
    pub(super) fn new(endpoint: &str) -> Self {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-west-1"))
            .endpoint_url(endpoint)
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Self(Client::from_conf(config))
    }

    /// Makes a queue; its URL.
    pub(super) async fn create(&self, name: &str) -> String {
        self.0.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap()
    }

    pub(super) async fn call(&self, action: &str, request: &Value) -> Value {
        match action {
            "GetQueueUrl" => self.get_url(request).await,
            "GetQueueAttributes" => self.get_attributes(request).await,
            "ReceiveMessage" => self.receive(request).await,
            "SendMessageBatch" => self.send(request).await,
            "DeleteMessageBatch" => self.delete(request).await,
            "ChangeMessageVisibilityBatch" => self.change(request).await,
            other => panic!("{other} is not called"),
        }
    }

    async fn get_url(&self, request: &Value) -> Value {
        let answer = self.0.get_queue_url().set_queue_name(text(&request["QueueName"])).send().await;
        answer.map_or_else(code, |answer| json!({ "QueueUrl": answer.queue_url }))
    }

    async fn get_attributes(&self, request: &Value) -> Value {
        let call = self.0.get_queue_attributes().set_queue_url(text(&request["QueueUrl"]));
        let answer = call.set_attribute_names(names::<QueueAttributeName>(&request["AttributeNames"])).send().await;
        answer.map_or_else(code, |answer| {
            let attributes = answer.attributes.unwrap_or_default().into_iter();
            let attributes: Map<_, _> = attributes.map(|(name, value)| (name.to_string(), json!(value))).collect();
            json!({ "Attributes": attributes })
        })
    }

    async fn receive(&self, request: &Value) -> Value {
        #[allow(deprecated, reason = "the older name of the same list is sent by ours, too")]
        let call = self.0.receive_message().set_attribute_names(names(&request["AttributeNames"]));
        let answer = call
            .set_queue_url(text(&request["QueueUrl"]))
            .set_max_number_of_messages(number(&request["MaxNumberOfMessages"]))
            .set_visibility_timeout(number(&request["VisibilityTimeout"]))
            .set_wait_time_seconds(number(&request["WaitTimeSeconds"]))
            .set_message_system_attribute_names(names::<MessageSystemAttributeName>(
                &request["MessageSystemAttributeNames"],
            ))
            .set_message_attribute_names(names(&request["MessageAttributeNames"]))
            .send()
            .await;
        answer.map_or_else(code, |answer| {
            json!({ "Messages": answer.messages.unwrap_or_default().into_iter().map(message).collect::<Value>() })
        })
    }

    async fn send(&self, request: &Value) -> Value {
        let entries = list(&request["Entries"]).into_iter().map(|entry| {
            let built = SendMessageBatchRequestEntry::builder().set_id(text(&entry["Id"]));
            let attributes = entry["MessageAttributes"].as_object().cloned().unwrap_or_default();
            let attributes = attributes.into_iter().map(|(name, value)| {
                let built = MessageAttributeValue::builder().set_data_type(text(&value["DataType"]));
                (name, built.set_string_value(text(&value["StringValue"])).build().unwrap())
            });
            let built = built.set_message_body(text(&entry["MessageBody"]));
            built.set_message_attributes(Some(attributes.collect())).build().unwrap()
        });
        let call = self.0.send_message_batch().set_queue_url(text(&request["QueueUrl"]));
        call.set_entries(Some(entries.collect())).send().await.map_or_else(code, |answer| {
            let done = answer.successful.into_iter();
            let done = done.map(|done| json!({ "Id": done.id, "MessageId": done.message_id }));
            json!({ "Successful": done.collect::<Value>(), "Failed": failed(answer.failed) })
        })
    }

    async fn delete(&self, request: &Value) -> Value {
        let entries = list(&request["Entries"]).into_iter().map(|entry| {
            let built = DeleteMessageBatchRequestEntry::builder().set_id(text(&entry["Id"]));
            built.set_receipt_handle(text(&entry["ReceiptHandle"])).build().unwrap()
        });
        let call = self.0.delete_message_batch().set_queue_url(text(&request["QueueUrl"]));
        call.set_entries(Some(entries.collect())).send().await.map_or_else(code, |answer| {
            let done = answer.successful.into_iter().map(|done| json!({ "Id": done.id }));
            json!({ "Successful": done.collect::<Value>(), "Failed": failed(answer.failed) })
        })
    }

    async fn change(&self, request: &Value) -> Value {
        let entries = list(&request["Entries"]).into_iter().map(|entry| {
            let built = ChangeMessageVisibilityBatchRequestEntry::builder().set_id(text(&entry["Id"]));
            let built = built.set_receipt_handle(text(&entry["ReceiptHandle"]));
            built.set_visibility_timeout(number(&entry["VisibilityTimeout"])).build().unwrap()
        });
        let call = self.0.change_message_visibility_batch().set_queue_url(text(&request["QueueUrl"]));
        call.set_entries(Some(entries.collect())).send().await.map_or_else(code, |answer| {
            let done = answer.successful.into_iter().map(|done| json!({ "Id": done.id }));
            json!({ "Successful": done.collect::<Value>(), "Failed": failed(answer.failed) })
        })
    }
}

fn failed(entries: Vec<BatchResultErrorEntry>) -> Value {
    let one = |entry: BatchResultErrorEntry| json!({ "Id": entry.id, "Code": entry.code, "SenderFault": entry.sender_fault, "Message": entry.message });
    entries.into_iter().map(one).collect()
}

fn message(from: Message) -> Value {
    let attributes = from.attributes.map(|attributes| {
        attributes.into_iter().map(|(name, value)| (name.to_string(), json!(value))).collect::<Map<_, _>>()
    });
    let own = from.message_attributes.map(|attributes| {
        let value =
            |value: MessageAttributeValue| json!({ "DataType": value.data_type, "StringValue": value.string_value });
        attributes.into_iter().map(|(name, own)| (name, value(own))).collect::<Map<_, _>>()
    });
    json!({
        "MessageId": from.message_id, "ReceiptHandle": from.receipt_handle, "Body": from.body,
        "MD5OfBody": from.md5_of_body, "MD5OfMessageAttributes": from.md5_of_message_attributes,
        "Attributes": attributes, "MessageAttributes": own,
    })
}
