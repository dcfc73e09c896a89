//! Passwords for Amazon RDS and Aurora made of AWS credentials: a signed URL that says who may connect where, for 15
//! minutes. Nothing is asked for it but the credentials; the database asks IAM whether `rds-db:connect` is allowed.
//!
//! <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html>

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign},
    sign::v4,
};
use hyper::Uri;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{
    AwsError, AwsSettings, Service,
    credentials::{self, Credentials, Snapshot},
    endpoint::{Wanted, region_of},
    http::HttpClient,
    protocol::encode,
};

/// How long a token opens a connection; one that is open stays so. RDS takes no longer one.
const HOLDS: Duration = Duration::from_secs(900);

const RDS: Service =
    Service { name: "rds-db", target: "", content_type: "", endpoint_variable: "AWS_ENDPOINT_URL_RDS", query: None };

/// What makes tokens. Region and credentials are found when the first is wanted.
pub struct RdsTokens {
    wanted: Wanted,
    http: HttpClient,
    static_keys: Option<SharedCredentialsProvider>,
    profile: Option<String>,
    found: Mutex<Option<Arc<Found>>>,
}

struct Found {
    region: String,
    credentials: Credentials,
}

impl RdsTokens {
    /// For the database on this host, whose name mostly tells the region; `lookup` reads the environment.
    ///
    /// # Errors
    /// [`AwsError::Configuration`] for a host or a CA bundle that is none.
    pub fn new(host: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, AwsError> {
        // Where a stand-in of other services answers says nothing about a database.
        let elsewhere = |name: &str| match name {
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS" => Some("true".to_owned()),
            name => lookup(name),
        };
        let ca_bundle = lookup("AWS_CA_BUNDLE").map(PathBuf::from);
        let settings = AwsSettings { resource: Some(address(host, 5432)), ..AwsSettings::default() };
        Ok(Self {
            wanted: Wanted::new(RDS, &settings, &elsewhere)?,
            http: HttpClient::new(ca_bundle.as_deref())?,
            static_keys: credentials::from_environment(lookup),
            profile: lookup("AWS_PROFILE"),
            found: Mutex::default(),
        })
    }

    /// A password with which this user may connect there within the next 15 minutes, as the host knows itself.
    ///
    /// # Errors
    /// No region or no credentials can be found.
    pub async fn token(&self, host: &str, port: u16, user: &str) -> Result<Zeroizing<String>, AwsError> {
        let found = self.found().await?;
        let by = found.credentials.get().await?;
        let mut url = address(host, port);
        let uri: Uri = url.parse().map_err(|_| AwsError::Configuration("the database's host is no name".to_owned()))?;
        let region = region_of(&uri).unwrap_or_else(|| found.region.clone());
        url.push_str("/?Action=connect&DBUser=");
        encode(user, &mut url);
        presigned(&url, &region, &by, SystemTime::now())
    }

    async fn found(&self) -> Result<Arc<Found>, AwsError> {
        let mut kept = self.found.lock().await;
        if let Some(found) = &*kept {
            return Ok(found.clone());
        }
        let place = self.wanted.clone().resolve(&self.http).await?;
        let provider = self.static_keys.clone().unwrap_or_else(|| place.credentials(&self.http));
        let credentials = Credentials::new(provider, self.profile.clone());
        Ok(kept.insert(Arc::new(Found { region: place.region, credentials })).clone())
    }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") }
}

/// The URL with its signature, and without its scheme, as RDS takes it for a password.
fn presigned(url: &str, region: &str, by: &Snapshot, at: SystemTime) -> Result<Zeroizing<String>, AwsError> {
    let odd = |e: &dyn std::error::Error| AwsError::Configuration(format!("the RDS token cannot be signed: {e}"));
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(HOLDS);
    let params = v4::SigningParams::builder()
        .identity(&by.identity)
        .region(region)
        .name(RDS.name)
        .time(at)
        .settings(settings)
        .build()
        .map_err(|e| odd(&e))?
        .into();
    let request =
        SignableRequest::new("GET", url, std::iter::empty(), SignableBody::Bytes(&[])).map_err(|e| odd(&e))?;
    let (instructions, _signature) = sign(request, &params).map_err(|e| odd(&e))?.into_parts();
    let mut token = Zeroizing::new(url.trim_start_matches("https://").to_owned());
    for (name, value) in instructions.params() {
        token.push('&');
        token.push_str(name);
        token.push('=');
        encode(value, &mut token);
    }
    Ok(token)
}
