//! What goes over the wire, and what each error of KMS means, against a scripted server. Stand-ins that behave like KMS
//! are in tests/it/kms.

use std::path::Path;

use super::{epochs::KmsOpener, token::WrappedRoot, *};
use crate::{
    aws::stub::{Step, Stub, environment},
    vault::{
        backend::{EpochSource, Recipients},
        kms::epochs::{EpochShut, KmsEpochs, recipient},
        seal::OpenError,
    },
};

const ARN: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

async fn key(stub: &Stub, name: &str) -> KmsKey {
    let url = stub.url.clone();
    let lookup = move |name: &str| if name == "AWS_ENDPOINT_URL_KMS" { Some(url.clone()) } else { environment(name) };
    KmsKey::connect(name, &lookup).await.unwrap()
}

fn context() -> Context {
    Context::from([("masq:use", "test".to_owned()), ("a", "\"ä\"".to_owned())])
}

fn made(key: &[u8]) -> Step {
    let [blob, key] = [&b"blob"[..], key].map(|bytes| BASE64_STANDARD.encode(bytes));
    Step::ok(&format!(r#"{{"KeyId":"{ARN}","CiphertextBlob":"{blob}","Plaintext":"{key}"}}"#))
}

fn opened(key: &[u8], arn: &str) -> Step {
    Step::ok(&format!(r#"{{"KeyId":"{arn}","Plaintext":"{}"}}"#, BASE64_STANDARD.encode(key)))
}

#[tokio::test]
async fn three_calls_as_kms_documents_them() {
    let wrapped = Step::ok(&format!(r#"{{"KeyId":"{ARN}","CiphertextBlob":"YmxvYg=="}}"#));
    let stub = Stub::start([made(&[7; 32]), wrapped, opened(&[9; 32], ARN)]).await;
    let key = key(&stub, "alias/vault").await;
    let (plain, Wrapped { blob, arn }) = key.make(&context()).await.unwrap();
    assert_eq!((*plain, blob.as_slice(), arn.as_str()), ([7; 32], &b"blob"[..], ARN));
    assert_eq!(key.wrap(&[9; 32], &context()).await.unwrap().blob, b"blob");
    assert_eq!(*key.open(b"blob", &context()).await.unwrap().0, [9; 32]);

    let seen = stub.seen();
    let asked: Vec<_> = seen.iter().map(|seen| (seen.header("x-amz-target").to_owned(), seen.body.clone())).collect();
    let common = r#"{"KeyId":"alias/vault","EncryptionContext":{"a":"\"ä\"","masq:use":"test"}"#;
    let nines = BASE64_STANDARD.encode([9; 32]);
    assert_eq!(asked[0].0, "TrentService.GenerateDataKey");
    assert_eq!(asked[0].1, format!(r#"{common},"KeySpec":"AES_256"}}"#));
    assert_eq!(asked[1].0, "TrentService.Encrypt");
    assert_eq!(asked[1].1, format!(r#"{common},"Plaintext":"{nines}"}}"#));
    assert_eq!(asked[2].0, "TrentService.Decrypt");
    assert_eq!(asked[2].1, format!(r#"{common},"CiphertextBlob":"YmxvYg=="}}"#));
    assert_eq!(seen[0].header("content-type"), "application/x-amz-json-1.1");
    assert!(seen[0].header("authorization").contains("/eu-west-1/kms/aws4_request"));
}

#[tokio::test]
async fn an_arn_names_the_region() {
    let stub = Stub::start([made(&[7; 32])]).await;
    key(&stub, ARN).await.make(&context()).await.unwrap();
    assert!(stub.seen()[0].header("authorization").contains("/eu-central-1/kms/aws4_request"));
}

#[tokio::test]
async fn each_error_names_key_call_cause_and_remedy() {
    let denied = "User: arn:aws:iam::1:role/worker is not authorized";
    for (status, code, message, expected) in [
        (400, "AccessDeniedException", denied, "allow kms:Decrypt in the role's policy or the resource's"),
        (
            400,
            "ExpiredTokenException",
            "",
            "check the access key, its secret and, for temporary ones, the session token",
        ),
        (400, "NotFoundException", "", "there is no such key: check its name, the account and the region"),
        (400, "DisabledException", "", "the key is disabled: enable it"),
        (400, "KMSInvalidStateException", "", "the key is pending deletion or import: cancel the deletion"),
        (400, "InvalidKeyUsageException", "", "name a symmetric key that encrypts and decrypts"),
        (400, "IncorrectKeyException", "", "another key of KMS has made it: name that one"),
        (400, "InvalidCiphertextException", "", "the blob was changed, or made for something else"),
        (400, "ValidationException", "1 validation error", "ValidationException: 1 validation error"),
    ] {
        // Credentials that have expired are fetched again once.
        let stub = Stub::start([Step::error(status, code, message), Step::error(status, code, message)]).await;
        let said = key(&stub, ARN).await.open(b"x", &context()).await.unwrap_err().to_string();
        assert!(said.starts_with(&format!("KMS key {ARN}: Decrypt: ")) && said.contains(expected), "{code}: {said}");
    }
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    let passing = [(400, "ThrottlingException"), (500, "KMSInternalException"), (503, "DependencyTimeoutException")];
    let steps = passing.map(|(status, code)| Step::error(status, code, "")).into_iter();
    let stub = Stub::start(steps.chain([Step::Close, Step::Close, made(&[7; 32])])).await;
    assert_eq!(*key(&stub, ARN).await.make(&context()).await.unwrap().0, [7; 32]);
    assert_eq!(stub.seen().len(), 6);
}

#[tokio::test]
async fn an_answer_of_something_else_is_no_key() {
    for answer in [made(&[7; 16]), made(b""), opened(&[7; 32], ARN), Step::ok("{}"), Step::ok("<html>")] {
        let stub = Stub::start([answer]).await;
        let said = key(&stub, ARN).await.make(&context()).await.err().unwrap().to_string();
        assert!(said.contains("no KMS: check AWS_ENDPOINT_URL_KMS"), "{said}");
    }
}

#[test]
fn names_of_keys() {
    let good = [
        ("alias/masq/vault-1", None),
        ("1234abcd-12ab-34cd-56ef-1234567890ab", None),
        ("mrk-1234abcd12ab34cd56ef1234567890ab", None),
        (ARN, Some("eu-central-1")),
        ("arn:aws-cn:kms:cn-north-1:123456789012:alias/v", Some("cn-north-1")),
    ];
    for (name, expected) in good {
        assert_eq!(region(name).unwrap().as_deref(), expected, "{name}");
    }
    let iam = "arn:aws:iam::123456789012:role/r";
    for bad in ["", "alias/", "vault key", "key/1", iam, "arn:aws:kms::1:key/1", "arn:aws:kms:eu-west-1:1:grant/1"] {
        assert_eq!(region(bad), None, "{bad}");
    }
}

#[test]
fn a_wrapped_root_reads_back_and_a_complaint_shows_no_content() {
    let text = format!("masq-token-key-kms-v1 kid=7\n# why\n\n{ARN}\r\nYmxvYg==\n");
    let path = Path::new("keys/token.key");
    let parse = |text: &str| WrappedRoot::parse(path, text.as_bytes()).map_err(|error| error.to_string());
    let root = parse(&text).unwrap().unwrap();
    assert_eq!((root.kid.get(), root.arn.as_str()), (7, ARN));
    assert_eq!(parse(&root.render()), Ok(Some(root)));
    assert_eq!(parse("masq-token-key-v1 kid=1\nAAAA\n"), Ok(None));
    for (bad, problem) in [
        (text.replace("kid=7", "kid=0"), "its key id is not between 1 and 255"),
        (text.replace(ARN, "alias/v"), "it names no key"),
        (text.replace("YmxvYg==", ""), "the wrapped key is missing or not base64"),
        (text.replace("YmxvYg==", "?"), "the wrapped key is missing or not base64"),
        (text.clone() + "more\n", "something follows the key"),
    ] {
        let said = parse(&bad).unwrap_err();
        assert_eq!(
            said,
            format!("keys/token.key is not the key file it should be ({problem}): restore it from a copy")
        );
    }
}

#[tokio::test]
async fn what_another_key_opened_is_no_epoch() {
    let other = ARN.replace("1234", "9999");
    let stub = Stub::start([made(&[1; 32]), made(&[7; 32]), opened(&[7; 32], &other)]).await;
    let key = key(&stub, ARN).await;
    let epochs = KmsEpochs::new(key.clone(), Recipients::default()).await.unwrap();
    assert_eq!(epochs.recipients()[0].fingerprint, recipient(ARN));
    let epoch = epochs.new_epoch(5).await.unwrap_or_else(|error| panic!("{error}"));
    let shut = KmsOpener::new(key).open(epoch.header()).await.err().unwrap();
    assert!(matches!(shut, EpochShut::Epoch(OpenError::Tampered)));
}
