//! What AWS's own client and ours make of the same calls to moto, a KMS that nobody here wrote: what one wraps the other
//! opens, with the same encryption context and no other; and moto, told to judge policies, lets a worker without Decrypt
//! work, whose signatures it recomputes.

use base64::{Engine, prelude::BASE64_STANDARD};
use masq::{
    queue::Key,
    vault::{
        backend::{EpochSource, Recipients},
        epochs::Opener,
        kms::{
            Context, KmsError, KmsKey,
            epochs::{KmsEpochs, KmsOpener},
        },
        seal::{EpochHeader, OpenEpoch},
    },
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::support::{Moto, moto, python_prints};

/// What boto3 answers to these calls.
async fn boto3(url: &str, calls: Value) -> Vec<Value> {
    serde_json::from_str(&python_prints("clients/kms.py", &[url], calls.to_string()).await).unwrap()
}

fn kms(call: &str, with: Value) -> Value {
    json!({ "service": "kms", "call": call, "with": with })
}

fn bytes(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value["base64"].as_str().unwrap()).unwrap()
}

fn base64(bytes: &[u8]) -> Value {
    json!({ "base64": BASE64_STANDARD.encode(bytes) })
}

/// Our client with these credentials.
async fn ours(url: &str, name: &str, [access, secret]: [&str; 2]) -> KmsKey {
    let environment = |variable: &str| match variable {
        "AWS_ENDPOINT_URL_KMS" => Some(url.to_owned()),
        "AWS_ACCESS_KEY_ID" => Some(access.to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some(secret.to_owned()),
        "AWS_REGION" => Some("eu-west-1".to_owned()),
        _ => None,
    };
    KmsKey::connect(name, &environment).await.unwrap()
}

#[tokio::test]
async fn what_one_client_wraps_the_other_opens_with_the_same_context_only() {
    let url = moto().await;
    let made = boto3(url, json!([kms("create_key", json!({}))])).await;
    let arn = made[0]["KeyMetadata"]["Arn"].as_str().unwrap();
    let key = ours(url, arn, ["test", "test"]).await;
    let context = Context::from([("masq:use", "epoch".to_owned()), ("ä", "\"\\ \u{1f512}".to_owned())]);
    let wrong = Context::from([("masq:use", "token".to_owned())]);

    let (plain, wrapped) = key.make(&context).await.unwrap();
    let token = key.wrap(&[7; 32], &context).await.unwrap();
    assert_eq!((wrapped.arn.as_str(), token.arn.as_str()), (arn, arn));
    let open = |blob: &[u8], context: &Context| {
        kms("decrypt", json!({ "KeyId": arn, "CiphertextBlob": base64(blob), "EncryptionContext": context }))
    };
    let wrap = kms("encrypt", json!({ "KeyId": arn, "Plaintext": base64(&[9; 32]), "EncryptionContext": context }));
    let make = kms("generate_data_key", json!({ "KeyId": arn, "KeySpec": "AES_256", "EncryptionContext": context }));
    let calls = [open(&wrapped.blob, &context), open(&token.blob, &context), open(&wrapped.blob, &wrong), wrap, make];
    let answers = boto3(url, json!(calls)).await;
    assert_eq!(bytes(&answers[0]["Plaintext"]), *plain);
    assert_eq!(bytes(&answers[1]["Plaintext"]), [7; 32]);
    assert_eq!(answers[2]["error"], "InvalidCiphertextException");
    let theirs = [(&answers[3], vec![9; 32]), (&answers[4], bytes(&answers[4]["Plaintext"]))];
    for (answer, expected) in theirs {
        let blob = bytes(&answer["CiphertextBlob"]);
        assert_eq!(key.open(&blob, &context).await.unwrap().0.to_vec(), expected);
        let refused = key.open(&blob, &wrong).await.err().unwrap();
        assert!(matches!(refused, KmsError::Tampered { .. }), "{refused}");
    }
}

#[tokio::test]
async fn whoever_may_decrypt_opens_an_epoch_without_masq() {
    let url = moto().await;
    let made = boto3(url, json!([kms("create_key", json!({}))])).await;
    let arn = made[0]["KeyMetadata"]["Arn"].as_str().unwrap();
    let epochs = KmsEpochs::new(ours(url, arn, ["test", "test"]).await, Recipients::default()).await.unwrap();
    let mut epoch = epochs.new_epoch(1_700_000_000_123).await.unwrap_or_else(|error| panic!("{error}"));
    let message = Key { sent_at: 7, id: Uuid::from_u128(8) };
    let sealed = epoch.seal(message, b"body");

    let EpochHeader { id, wraps, .. } = epoch.header();
    let named = Sha256::digest(format!("masq/kms-key/v1\0{arn}"));
    assert_eq!((wraps.len(), wraps[0].recipient.as_slice(), wraps[0].wrapped[0]), (1, named.as_slice(), 2));
    let context = json!({ "masq:use": "epoch", "masq:epoch": id.to_string(), "masq:started_at": "1700000000123" });
    let open = json!({ "CiphertextBlob": base64(&wraps[0].wrapped[1..]), "EncryptionContext": context });
    let key = bytes(&boto3(url, json!([kms("decrypt", open)])).await[0]["Plaintext"]);
    let opened = OpenEpoch::with_key(*id, key.as_slice().try_into().unwrap()).open(message, &sealed);
    assert_eq!(opened.unwrap().as_slice(), b"body");
}

#[tokio::test]
async fn moto_s_policies_let_a_worker_work_that_may_not_decrypt() {
    let moto = Moto::start().await;
    let url = &moto.url;
    let may = |user: &str, action: &str| {
        // moto judges the action alone: it takes every call for one on "*".
        let statement = json!({ "Effect": "Allow", "Action": action, "Resource": "*" });
        let policy = json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string();
        let iam = |call: &str, with: Value| json!({ "service": "iam", "call": call, "with": with });
        [
            iam("create_user", json!({ "UserName": user })),
            iam("put_user_policy", json!({ "UserName": user, "PolicyName": "p", "PolicyDocument": policy })),
            iam("create_access_key", json!({ "UserName": user })),
        ]
    };
    let calls = [
        &[kms("create_key", json!({}))][..],
        &may("worker", "kms:GenerateDataKey"),
        &may("revealer", "kms:Decrypt"),
        &[json!({ "authorize": true })],
    ]
    .concat();
    let answers = boto3(url, json!(calls)).await;
    let access = |answer: &Value| {
        ["AccessKeyId", "SecretAccessKey"].map(|name| answer["AccessKey"][name].as_str().unwrap().to_owned())
    };
    let (worker, revealer) = (access(&answers[3]), access(&answers[6]));
    let arn = answers[0]["KeyMetadata"]["Arn"].as_str().unwrap();

    let [worker, revealer] = [worker, revealer].map(|[access, secret]| {
        let (url, arn) = (url.clone(), arn.to_owned());
        async move { ours(&url, &arn, [&access, &secret]).await }
    });
    let (worker, revealer) = (worker.await, revealer.await);
    let epochs = KmsEpochs::new(worker.clone(), Recipients::default()).await.unwrap();
    let epoch = epochs.new_epoch(5).await.unwrap_or_else(|error| panic!("{error}"));

    let by_worker = KmsOpener::new(worker);
    let refused = Opener::of_kms(&by_worker).fetch([epoch.header()]).await.err().unwrap();
    assert!(matches!(refused, KmsError::Denied { .. }), "{refused}");
    assert!(refused.to_string().contains("allow kms:Decrypt"), "{refused}");
    let refused = KmsEpochs::new(revealer.clone(), Recipients::default()).await.err().unwrap();
    assert!(refused.to_string().contains("allow kms:GenerateDataKey"), "{refused}");
    let by_revealer = KmsOpener::new(revealer);
    let mut opener = Opener::of_kms(&by_revealer);
    opener.fetch([epoch.header()]).await.unwrap();
    assert!(opener.epoch(epoch.header()).is_ok());

    let forged = ours(url, arn, ["AKIAWRONG", "wrong"]).await.make(&Context::new()).await.err().unwrap();
    assert!(matches!(forged, KmsError::Denied { .. }), "{forged}");
}
