//! The signature of a request as AWS would check it: computed a second time by botocore, from what went over the wire.
//! Stand-ins take any signature, so without this a wrong one would be found by the first real queue.

use std::{net::Ipv4Addr, sync::Arc};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap};
use masq::queue::{
    Queue, Receipt,
    sqs::{SqsQueue, SqsSettings},
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

use crate::support::python_prints;

const ACCESS_KEY: &str = "AKIDEXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "a/session+token==";

type Seen = Arc<UnboundedSender<(HeaderMap, Bytes)>>;

async fn note(State(seen): State<Seen>, headers: HeaderMap, body: Bytes) -> &'static str {
    seen.send((headers, body)).unwrap();
    r#"{"Successful": []}"#
}

#[tokio::test(flavor = "multi_thread")]
async fn botocore_computes_the_same_signature() {
    let (sender, mut seen) = unbounded_channel();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(note).with_state(Arc::new(sender));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let environment = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some(ACCESS_KEY.to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some(SECRET_KEY.to_owned()),
        "AWS_SESSION_TOKEN" => Some(TOKEN.to_owned()),
        "AWS_REGION" => Some("eu-central-1".to_owned()),
        _ => None,
    };
    let queue = format!("{endpoint}/123456789012/login-queue");
    let queue = SqsQueue::connect(SqsSettings { queue, ..SqsSettings::default() }, &environment).await.unwrap();
    drop(queue.delete(&[Receipt("a+handle/with=signs".into())]).await);

    let (headers, body) = seen.recv().await.unwrap();
    let headers: serde_json::Map<_, _> =
        headers.iter().map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap()))).collect();
    let captured = json!({
        "url": format!("{endpoint}/"), "headers": headers, "body": String::from_utf8(body.to_vec()).unwrap(),
        "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "token": TOKEN, "region": "eu-central-1",
    });
    python_prints("clients/check_signature.py", &[], captured.to_string()).await;
}
