//! The operations on queues: create, find, list, purge, delete, and their attributes.
//!
//! A purge or a delete is done when it is answered, so nothing here is ever "in progress" or "deleted recently", for
//! which Amazon SQS makes callers wait sixty seconds.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{Service, attributes, fault::Fault, queue_url};
use crate::queue::memory::{MemoryQueue, Settings};

/// The most queues in one answer (AWS, ListQueues).
const LONGEST_LIST: usize = 1000;

/// The empty answer: `{}`.
#[derive(Serialize)]
pub(super) struct Done {}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Create {
    #[serde(default)]
    queue_name: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default, rename = "tags")]
    tags: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Url {
    queue_url: String,
}

/// Any request that needs to say no more than which queue.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OneQueue<'a> {
    #[serde(borrow, default)]
    queue_url: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetUrl {
    #[serde(default)]
    queue_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct List {
    #[serde(default)]
    queue_name_prefix: String,
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    queue_urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetAttributes<'a> {
    #[serde(borrow, default)]
    queue_url: Cow<'a, str>,
    #[serde(default)]
    attribute_names: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Attributes {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<&'static str, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SetAttributes<'a> {
    #[serde(borrow, default)]
    queue_url: Cow<'a, str>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

impl Service {
    /// The queue that a URL names: by its last part, so that any host name of this machine does.
    pub(super) fn queue(&self, url: &str) -> Result<MemoryQueue, Fault> {
        if url.is_empty() {
            return Err(Fault::MissingParameter("QueueUrl"));
        }
        let name = url.rsplit('/').next().unwrap_or(url);
        self.queues.get(name).ok_or(Fault::QueueDoesNotExist)
    }
}

/// A queue that is there already is found again if it has the attributes asked for; those not asked for do not count.
pub(super) fn create(service: &Service, host: &str, request: &Create) -> Result<Url, Fault> {
    let name = &request.queue_name;
    if name.is_empty() {
        return Err(Fault::MissingParameter("QueueName"));
    }
    if !request.tags.is_empty() {
        return Err(Fault::UnsupportedOperation("tags are not supported here".into()));
    }
    attributes::check_kind(name, &request.attributes)?;
    let mut settings = service.queues.get(name).map_or_else(Settings::default, |queue| queue.settings());
    attributes::apply(&mut settings, &request.attributes, name, &service.queues)?;
    service.queues.create(name, settings)?;
    Ok(Url { queue_url: queue_url(host, name) })
}

pub(super) fn url(service: &Service, host: &str, request: &GetUrl) -> Result<Url, Fault> {
    if request.queue_name.is_empty() {
        return Err(Fault::MissingParameter("QueueName"));
    }
    let queue = service.queues.get(&request.queue_name).ok_or(Fault::QueueDoesNotExist)?;
    Ok(Url { queue_url: queue_url(host, queue.name()) })
}

/// Pages when MaxResults asks for it; the token is the last name of the page before.
pub(super) fn list(service: &Service, host: &str, request: &List) -> Result<Listed, Fault> {
    let page = request.max_results.map_or(Ok(LONGEST_LIST), usize::try_from).unwrap_or(0);
    if !(1..=LONGEST_LIST).contains(&page) {
        return Err(Fault::InvalidParameterValue { parameter: "MaxResults", reason: "1 to 1000".into() });
    }
    let after = request.next_token.as_deref().map(read_token).transpose()?.unwrap_or_default();
    let mut names = service.queues.names();
    names.retain(|name| name.starts_with(&request.queue_name_prefix) && *name > after);
    let more = names.len() > page && request.max_results.is_some();
    names.truncate(page);
    let next_token = names.last().filter(|_| more).map(|last| BASE64_STANDARD.encode(last));
    Ok(Listed { queue_urls: names.iter().map(|name| queue_url(host, name)).collect(), next_token })
}

fn read_token(token: &str) -> Result<String, Fault> {
    let name = BASE64_STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    name.ok_or_else(|| Fault::InvalidParameterValue { parameter: "NextToken", reason: "not from this server".into() })
}

pub(super) fn delete(service: &Service, request: &OneQueue) -> Result<Done, Fault> {
    let queue = service.queue(&request.queue_url)?;
    service.queues.delete(queue.name());
    Ok(Done {})
}

pub(super) fn purge(service: &Service, request: &OneQueue) -> Result<Done, Fault> {
    service.queue(&request.queue_url)?.purge();
    Ok(Done {})
}

pub(super) fn get_attributes(service: &Service, request: &GetAttributes) -> Result<Attributes, Fault> {
    let queue = service.queue(&request.queue_url)?;
    Ok(Attributes { attributes: attributes::read(&queue, &request.attribute_names)? })
}

pub(super) fn set_attributes(service: &Service, request: &SetAttributes) -> Result<Done, Fault> {
    let queue = service.queue(&request.queue_url)?;
    let mut settings = queue.settings();
    attributes::apply(&mut settings, &request.attributes, queue.name(), &service.queues)?;
    queue.set(settings);
    Ok(Done {})
}
