//! The client against a scripted server: what it sends, what it makes of each answer, and what it repeats.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::Command,
    sync::atomic::Ordering,
    time::SystemTime,
};

use aws_config::credential_process::CredentialProcessProvider;
use aws_credential_types::provider::SharedCredentialsProvider;
use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    stub::{Step, Stub, environment},
    *,
};
use crate::queue::room::Room;

const SERVICE: Service = Service {
    name: "sqs",
    target: "AmazonSQS",
    content_type: "application/x-amz-json-1.0",
    endpoint_variable: "AWS_ENDPOINT_URL_SQS",
    query: None,
};
const ASK: Operation = Operation { action: "DeleteMessageBatch", timeout: Duration::from_secs(5), repeatable: true };

async fn connect(endpoint: &str) -> AwsClient {
    let settings = AwsSettings { endpoint: Some(endpoint.to_owned()), ..AwsSettings::default() };
    AwsClient::connect(SERVICE, settings, &environment).await.unwrap()
}

async fn failure(step: Step) -> AwsError {
    let stub = Stub::start([step]).await;
    connect(&stub.url).await.call(ASK, Bytes::from_static(b"{}")).await.unwrap_err()
}

#[tokio::test]
async fn a_call_is_a_signed_post() {
    let stub = Stub::start([Step::ok(r#"{"a":1}"#)]).await;
    let answer = connect(&stub.url).await.call(ASK, Bytes::from_static(b"{\"q\":2}")).await.unwrap();
    assert_eq!(answer, r#"{"a":1}"#);
    let request = &stub.seen()[0];
    assert!(request.head.starts_with("POST / HTTP/1.1\r\n"));
    assert_eq!(request.body, r#"{"q":2}"#);
    assert_eq!(request.header("x-amz-target"), "AmazonSQS.DeleteMessageBatch");
    assert_eq!(request.header("content-type"), "application/x-amz-json-1.0");
    assert!(request.header("user-agent").starts_with("masq/"));
    let authorization = request.header("authorization");
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"));
    assert!(authorization.contains("/eu-west-1/sqs/aws4_request"));
    assert!(authorization.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-target"));
    assert_eq!(request.header("x-amz-security-token"), "");
}

#[tokio::test]
async fn errors_are_named_by_what_helps() {
    let cases = [
        (400, "QueueDoesNotExist", "NotFound"),
        (400, "AWS.SimpleQueueService.NonExistentQueue", "NotFound"),
        (403, "AccessDenied", "Denied"),
        (400, "AccessDeniedException", "Denied"),
        (403, "InvalidClientTokenId", "Denied"),
        (403, "SignatureDoesNotMatch", "Denied"),
        (400, "KmsAccessDenied", "Denied"),
        (400, "OptInRequired", "Denied"),
        (403, "SomethingNew", "Denied"),
        (400, "RequestThrottled", "Throttled"),
        (400, "ThrottlingException", "Throttled"),
        (400, "KmsThrottled", "Throttled"),
        (400, "OverLimit", "Throttled"),
        (429, "SomethingNew", "Throttled"),
        (500, "InternalFailure", "Server"),
        (503, "ServiceUnavailable", "Server"),
        (400, "QueueDeletedRecently", "Server"),
        (400, "InvalidAddress", "Rejected"),
        (404, "SomethingNew", "Rejected"),
    ];
    for (status, code, name) in cases {
        let steps = [Step::error(status, code, "why"), Step::error(status, code, "why")];
        let stub = Stub::start(steps).await;
        let error = connect(&stub.url).await.call(ASK, Bytes::new()).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(name), "{status} {code}: {error:?}");
        let word = code.rsplit('.').next().unwrap();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_code_may_stand_in_a_header_alone() {
    let headers = vec![("x-amzn-query-error", "AWS.SimpleQueueService.NonExistentQueue;Sender".to_owned())];
    let error = failure(Step::Answer(400, headers, "<xml/>".to_owned())).await;
    assert!(matches!(error, AwsError::NotFound { .. }), "{error:?}");
    let error = failure(Step::Answer(502, Vec::new(), "<html>Bad gateway</html>".to_owned())).await;
    assert_eq!(error.to_string(), "the service failed with status 502 (HTTP status 502)");
}

#[tokio::test]
async fn a_denial_names_the_permission() {
    let text = "User: arn:aws:iam::123456789012:role/a-role-with-quite-a-long-name-that-must-be-seen may not";
    let error = failure(Step::error(403, "AccessDenied", text)).await;
    assert_eq!(
        error.to_string(),
        format!("AccessDenied: {text}: allow sqs:DeleteMessage in the role's policy or the resource's")
    );
}

#[tokio::test]
async fn a_receipt_handle_is_never_repeated() {
    let handle = "AQEB".repeat(80);
    for text in [format!("The input receipt handle {handle} is not valid"), format!("Value {handle} is invalid")] {
        let error = failure(Step::error(400, "ReceiptHandleIsInvalid", &text)).await;
        assert!(!format!("{error} {error:?}").contains("AQEBAQEB"), "{error}");
    }
}

#[tokio::test]
async fn a_slow_answer_times_out() {
    let stub = Stub::start([Step::Silence]).await;
    let quick = Operation { timeout: Duration::from_millis(50), ..ASK };
    let error = connect(&stub.url).await.call(quick, Bytes::new()).await.unwrap_err();
    assert!(matches!(error, AwsError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_stops_half_way_times_out() {
    let room = Room::new(1000);
    for room in [None, Some(&room)] {
        let stub = Stub::start([Step::Stall]).await;
        let quick = Operation { timeout: Duration::from_millis(50), ..ASK };
        let error = connect(&stub.url).await.call_within(quick, Bytes::new(), room).await.err().unwrap();
        assert!(matches!(error, AwsError::Timeout { .. }), "{error:?}");
    }
    assert_eq!(room.free(), 1000, "its room is free again");
}

#[tokio::test]
async fn an_answer_is_read_when_there_is_room_for_it_and_that_wait_has_no_end() {
    let stub = Stub::start([Step::ok("{}")]).await;
    let (client, room) = (connect(&stub.url).await, Room::new(100));
    let quick = Operation { timeout: Duration::from_millis(50), ..ASK };
    let taken = room.take(99).await;
    let mut call = Box::pin(client.call_within(quick, Bytes::new(), Some(&room)));
    assert!(tokio::time::timeout(quick.timeout * 2, &mut call).await.is_err());
    drop(taken);
    let (answer, share) = call.await.unwrap();
    assert_eq!((&answer[..], room.free()), (&b"{}"[..], 98));
    drop(share);
    assert_eq!(room.free(), 100);
}

#[tokio::test]
async fn an_error_needs_no_room() {
    let stub = Stub::start([Step::error(400, "RequestThrottled", "")]).await;
    let room = Room::new(100);
    let _all = room.take(100).await;
    let client = connect(&stub.url).await;
    let answer = tokio::time::timeout(ASK.timeout, client.call_within(ASK, Bytes::new(), Some(&room))).await;
    let error = answer.expect("it waits for nothing").err().unwrap();
    assert!(matches!(error, AwsError::Throttled { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_of_unknown_length_is_read_alone_and_keeps_what_it_needs() {
    let stub = Stub::start([Step::Chunked("{}".to_owned())]).await;
    let (client, room) = (connect(&stub.url).await, Room::new(100));
    let taken = room.take(1).await;
    let mut call = Box::pin(client.call_within(ASK, Bytes::new(), Some(&room)));
    // Whoever waits for more than is free has what is free.
    while room.free() > 0 {
        assert!(futures_util::poll!(&mut call).is_pending(), "not while another holds a byte");
        tokio::task::yield_now().await;
    }
    drop(taken);
    let (answer, share) = call.await.unwrap();
    assert_eq!((&answer[..], room.free()), (&b"{}"[..], 98));
    drop(share);
}

#[tokio::test]
async fn a_truncated_answer_is_no_answer() {
    let error = failure(Step::Truncate).await;
    assert!(matches!(error, AwsError::Network { closed: false, .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_there() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = connect(&format!("http://{free}")).await.call(ASK, Bytes::new()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot reach http://{free}: ")), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_is_replaced_once() {
    let stub = Stub::start([Step::ok("1"), Step::Close, Step::ok("2")]).await;
    let client = connect(&stub.url).await;
    assert_eq!(client.call(ASK, Bytes::new()).await.unwrap(), "1");
    assert_eq!(client.call(ASK, Bytes::new()).await.unwrap(), "2");
    let connections: Vec<usize> = stub.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 1]);

    let stub = Stub::start([Step::Close, Step::Close]).await;
    let error = connect(&stub.url).await.call(ASK, Bytes::new()).await.unwrap_err();
    assert!(matches!(error, AwsError::Network { closed: true, .. }), "{error:?}");
    assert_eq!(stub.seen().len(), 2);
}

#[tokio::test]
async fn what_must_not_happen_twice_is_sent_once() {
    let stub = Stub::start([Step::Close]).await;
    let once = Operation { repeatable: false, ..ASK };
    connect(&stub.url).await.call(once, Bytes::new()).await.unwrap_err();
    assert_eq!(stub.seen().len(), 1);
}

/// A client whose keys come from a program: `KEY1` at its first call, `KEY2` at its second.
fn with_process(stub: &Stub, dir: &Path) -> AwsClient {
    let script = dir.join("keys.sh");
    let text = r#"echo call >>"$1/calls"
n=$(wc -l <"$1/calls" | tr -d ' ')
echo '{"Version":1,"AccessKeyId":"KEY'$n'","SecretAccessKey":"s","SessionToken":"T'$n'","Expiration":"2099-01-01T00:00:00Z"}'
"#;
    fs::write(&script, text).unwrap();
    let process = CredentialProcessProvider::new(format!("sh {} {}", script.display(), dir.display()));
    let credentials = Credentials::new(SharedCredentialsProvider::new(process), None);
    AwsClient::new(Inner {
        service: SERVICE,
        http: HttpClient::new(None).unwrap(),
        credentials,
        region: "eu-west-1".to_owned(),
        endpoint: format!("{}/", stub.url).parse().unwrap(),
        clock_offset: 0.into(),
        spoken: Spoken::new(Protocol::Json, None, false),
    })
}

#[tokio::test]
async fn expired_credentials_are_fetched_again_once() {
    let dir = tempfile::tempdir().unwrap();
    let stub = Stub::start([Step::ok("1"), Step::error(403, "ExpiredToken", "expired"), Step::ok("2")]).await;
    let client = with_process(&stub, dir.path());
    assert_eq!(client.call(ASK, Bytes::new()).await.unwrap(), "1");
    assert_eq!(client.call(ASK, Bytes::new()).await.unwrap(), "2");
    let tokens: Vec<String> = stub.seen().iter().map(|s| s.header("x-amz-security-token").to_owned()).collect();
    assert_eq!(tokens, ["T1", "T1", "T2"]);
    assert!(stub.seen()[2].header("authorization").contains("Credential=KEY2/"));
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_and_named() {
    let ahead = SystemTime::now() + Duration::from_secs(600);
    let date = aws_smithy_types::DateTime::from(ahead).fmt(aws_smithy_types::date_time::Format::HttpDate).unwrap();
    let refuse = || {
        let Step::Answer(status, _, body) = Step::error(403, "SignatureDoesNotMatch", "Signature expired") else {
            unreachable!()
        };
        Step::Answer(status, vec![("date", date.clone())], body)
    };
    let stub = Stub::start([refuse(), Step::ok("1"), Step::ok("2")]).await;
    let client = connect(&stub.url).await;
    client.call(ASK, Bytes::new()).await.unwrap();
    client.call(ASK, Bytes::new()).await.unwrap();
    let seen = stub.seen();
    assert!(seen[0].header("x-amz-date") < seen[1].header("x-amz-date"));
    let offset = client.inner.clock_offset.load(Ordering::Relaxed);
    assert!((598..=601).contains(&offset), "{offset}");

    let stub = Stub::start([refuse(), Step::error(403, "SignatureDoesNotMatch", "wrong secret")]).await;
    let error = connect(&stub.url).await.call(ASK, Bytes::new()).await.unwrap_err();
    assert!(matches!(error, AwsError::Denied { .. }), "{error:?}");
}

/// A certificate for 127.0.0.1 that signs itself, and its key, as PEM files in `dir`.
fn self_signed(dir: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=stub", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Answers one request over TLS, from a thread of its own; says whether the client went on after the handshake.
fn serve_tls(dir: &Path) -> (String, std::thread::JoinHandle<bool>) {
    let certificate = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(config.into()).unwrap(), stream);
        let mut bytes = [0; 4096];
        let Ok(1..) = tls.read(&mut bytes) else { return false };
        tls.write_all(b"HTTP/1.1 200 -\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        true
    });
    (url, server)
}

#[tokio::test]
async fn a_ca_bundle_replaces_the_systems_authorities() {
    let dir = tempfile::tempdir().unwrap();
    self_signed(dir.path());
    let bundle = dir.path().join("cert.pem").to_str().unwrap().to_owned();
    let with_bundle = |name: &str| environment(name).or((name == "AWS_CA_BUNDLE").then(|| bundle.clone()));

    let (url, server) = serve_tls(dir.path());
    let settings = AwsSettings { endpoint: Some(url), ..AwsSettings::default() };
    let client = AwsClient::connect(SERVICE, settings, &with_bundle).await.unwrap();
    assert_eq!(client.call(ASK, Bytes::new()).await.unwrap(), "{}");
    assert!(server.join().unwrap());

    let (url, server) = serve_tls(dir.path());
    let distrust = HttpClient::new(None).unwrap();
    let request = hyper::Request::get(&url).body(Bytes::new()).unwrap();
    let place = request.uri().clone();
    let error = distrust.send(request, &place, ASK.timeout, None).await.err().unwrap();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert!(error.to_string().contains("AWS_CA_BUNDLE"), "{error}");
    assert!(!server.join().unwrap());
}

#[tokio::test]
async fn a_bundle_must_have_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "nothing\n").unwrap();
    for path in [empty, dir.path().join("missing.pem")] {
        let error = HttpClient::new(Some(&path)).err().unwrap();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
