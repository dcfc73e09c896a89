//! A KMS in memory that judges what moto does not: who may do what with which key. It keeps to the documented
//! answers of AWS: a blob opens with its own key and encryption context only, and every call is written down.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// The access key of the worker, and of whoever reveals. Any secret goes with them: signatures are judged elsewhere.
pub(super) const WORKER: &str = "AKIAWORKER";
pub(super) const REVEALER: &str = "AKIAREVEALER";

pub(super) const TOKEN_KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/11111111-0000-0000-0000-000000000000";
pub(super) const VAULT_KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/22222222-0000-0000-0000-000000000000";
pub(super) const VAULT_ALIAS: &str = "alias/masq-vault";

/// What everybody may, as the policies in SECURITY.md say it.
const ALLOWED: [(&str, &str, &str); 5] = [
    (WORKER, "GenerateDataKey", VAULT_KEY),
    (WORKER, "Decrypt", TOKEN_KEY),
    (WORKER, "Encrypt", TOKEN_KEY), // as `masq keys new` needs it
    (REVEALER, "Decrypt", VAULT_KEY),
    (REVEALER, "Decrypt", TOKEN_KEY),
];

/// A call as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) who: String,
    pub(super) action: String,
    pub(super) key: String,
    pub(super) context: Value,
}

#[derive(Default)]
struct Inner {
    calls: Mutex<Vec<Call>>,
    /// A code with which everything fails.
    fault: Mutex<Option<&'static str>>,
    made: Mutex<u8>,
    /// What somebody may besides.
    allowed: Mutex<Vec<(&'static str, &'static str, &'static str)>>,
}

/// Ends with its connections when it is dropped.
pub(super) struct StandIn {
    pub(super) url: String,
    inner: Arc<Inner>,
    _server: JoinSet<()>,
}

impl StandIn {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, inner, _server: server }
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.inner.calls.lock().unwrap().clone()
    }

    /// Everything fails with this code from now on, or works again.
    pub(super) fn fail(&self, code: Option<&'static str>) {
        *self.inner.fault.lock().unwrap() = code;
    }

    /// Lets somebody do more from now on.
    pub(super) fn allow(&self, who: &'static str, action: &'static str, key: &'static str) {
        self.inner.allowed.lock().unwrap().push((who, action, key));
    }

    /// The environment of somebody with this access key.
    pub(super) fn environment(&self, who: &'static str) -> impl Fn(&str) -> Option<String> + use<> {
        let url = self.url.clone();
        let variables: HashMap<&str, String> = HashMap::from([
            ("AWS_ENDPOINT_URL_KMS", url),
            ("AWS_ACCESS_KEY_ID", who.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("AWS_REGION", "eu-west-1".to_owned()),
        ]);
        move |name| variables.get(name).cloned()
    }
}

type Answer = (StatusCode, String);

fn refuse(status: u16, code: &str, message: &str) -> Answer {
    (StatusCode::from_u16(status).unwrap(), json!({ "__type": code, "message": message }).to_string())
}

async fn answer(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let header = |name: &str| headers[name].to_str().unwrap();
    let action = header("x-amz-target").strip_prefix("TrentService.").unwrap().to_owned();
    let who = header("authorization").split(['=', '/']).nth(1).unwrap().to_owned();
    let named = asked["KeyId"].as_str().unwrap();
    let key = if named == VAULT_ALIAS { VAULT_KEY } else { named }.to_owned();
    let context = asked["EncryptionContext"].clone();
    let call = Call { who, action, key, context };
    inner.calls.lock().unwrap().push(call.clone());
    if let Some(code) = *inner.fault.lock().unwrap() {
        return refuse(if code.contains("Internal") { 500 } else { 400 }, code, "");
    }
    let Call { who, action, key, context } = &call;
    let asked_for = (who.as_str(), action.as_str(), key.as_str());
    if !ALLOWED.contains(&asked_for) && !inner.allowed.lock().unwrap().contains(&asked_for) {
        let message = format!("User: arn:aws:iam::123456789012:user/{who} is not authorized to perform: kms:{action}");
        return refuse(400, "AccessDeniedException", &message);
    }
    let bytes = |name: &str| BASE64_STANDARD.decode(asked[name].as_str().unwrap()).unwrap();
    let made = {
        let mut made = inner.made.lock().unwrap();
        *made += 1;
        *made
    };
    match action.as_str() {
        "GenerateDataKey" => {
            let plain = [made; 32];
            let blob = BASE64_STANDARD.encode(seal(key, context, made, &plain));
            let plain = BASE64_STANDARD.encode(plain);
            (StatusCode::OK, json!({ "KeyId": key, "CiphertextBlob": blob, "Plaintext": plain }).to_string())
        }
        "Encrypt" => {
            let blob = BASE64_STANDARD.encode(seal(key, context, made, &bytes("Plaintext")));
            (StatusCode::OK, json!({ "KeyId": key, "CiphertextBlob": blob }).to_string())
        }
        "Decrypt" => open(key, context, &bytes("CiphertextBlob")),
        _ => refuse(400, "UnknownOperationException", ""),
    }
}

/// The key's own secret: made of its name.
fn secret(arn: &str) -> LessSafeKey {
    let bytes: [u8; 32] = std::array::from_fn(|at| arn.as_bytes()[arn.len() - 1 - at].wrapping_add(arn.as_bytes()[40]));
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).unwrap())
}

/// The ARN and its length, the nonce, ciphertext and tag.
fn seal(arn: &str, context: &Value, made: u8, plain: &[u8]) -> Vec<u8> {
    let (nonce, mut text) = ([made; 12], plain.to_vec());
    let aad = Aad::from(context.to_string());
    secret(arn).seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text).unwrap();
    [&[u8::try_from(arn.len()).unwrap()], arn.as_bytes(), &nonce, &text].concat()
}

fn open(arn: &str, context: &Value, blob: &[u8]) -> Answer {
    let tampered = || refuse(400, "InvalidCiphertextException", "");
    let (length, rest) = blob.split_first().unwrap();
    let Some((named, rest)) = rest.split_at_checked((*length).into()) else { return tampered() };
    if named != arn.as_bytes() {
        return refuse(400, "IncorrectKeyException", "");
    }
    let (nonce, text) = rest.split_first_chunk::<12>().unwrap();
    let (mut text, aad) = (text.to_vec(), Aad::from(context.to_string()));
    match secret(arn).open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut text) {
        Ok(plain) => (StatusCode::OK, json!({ "KeyId": arn, "Plaintext": BASE64_STANDARD.encode(plain) }).to_string()),
        Err(_) => tampered(),
    }
}
