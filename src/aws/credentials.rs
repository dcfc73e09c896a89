//! Who signs: credentials from the environment or from AWS's default chain, kept until shortly before they expire.
//!
//! Whoever asks gets the kept ones without waiting. When their time comes, one caller fetches new ones while the others
//! go on with the old; only when there are none that hold do callers wait, and then for one fetch.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials as Keys,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use aws_smithy_runtime_api::client::{identity::Identity, result::ConnectorError};
use tokio::sync::Mutex;

use super::{
    error::{AwsError, causes},
    sigv4::DaysKey,
};

/// How long before their end credentials are renewed. Earlier bears a longer outage of what gives them; later asks less
/// often. Metadata services hand out new ones about five minutes before the end.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// How long until the next attempt when renewing failed while the old credentials still hold.
const RENEW_AGAIN: Duration = Duration::from_secs(20);

/// How long the chain may take. A `credential_process` may be a Python program that asks a slow server.
const FETCH: Duration = Duration::from_secs(30);

/// Credentials and when to renew them.
pub(super) struct Snapshot {
    pub(super) identity: Identity,
    pub(super) days_key: DaysKey,
    expires: Option<SystemTime>,
    renew_at: Option<SystemTime>,
}

impl Snapshot {
    fn new(identity: Identity, expires: Option<SystemTime>, renew_at: Option<SystemTime>) -> Self {
        Self { identity, days_key: DaysKey::default(), expires, renew_at }
    }

    /// Credentials that last.
    #[cfg(test)]
    pub(super) fn of(keys: Keys) -> Self {
        Self::new(keys.into(), None, None)
    }
}

/// The credentials of one client.
pub(super) struct Credentials {
    provider: SharedCredentialsProvider,
    /// The name of the profile, for the remedy in an error.
    profile: Option<String>,
    kept: RwLock<Option<Arc<Snapshot>>>,
    fetching: Mutex<()>,
}

impl Credentials {
    /// Nothing is fetched yet.
    pub(super) fn new(provider: SharedCredentialsProvider, profile: Option<String>) -> Self {
        Self { provider, profile, kept: RwLock::new(None), fetching: Mutex::new(()) }
    }

    /// Credentials that have not expired.
    pub(super) async fn get(&self) -> Result<Arc<Snapshot>, AwsError> {
        let now = SystemTime::now();
        let kept = self.kept();
        if let Some(kept) = &kept {
            if !reached(kept.renew_at, now) {
                return Ok(kept.clone());
            }
            if !reached(kept.expires, now) {
                return Ok(match self.fetching.try_lock() {
                    Ok(_only_one) => self.renew(kept, now).await,
                    Err(_somebody_else_does) => kept.clone(),
                });
            }
        }
        let _only_one = self.fetching.lock().await;
        match self.kept() {
            Some(fresh) if !reached(fresh.expires, SystemTime::now()) => Ok(fresh),
            _ => self.fetch().await.map(|fresh| self.keep(fresh)),
        }
    }

    /// Forgets credentials that the service has refused, unless they have been replaced meanwhile.
    pub(super) fn forget(&self, refused: &Arc<Snapshot>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, refused)) {
            *kept = None;
        }
    }

    /// New credentials, or the old ones with a later time of renewal where none are to be had.
    async fn renew(&self, old: &Arc<Snapshot>, now: SystemTime) -> Arc<Snapshot> {
        let next = match self.fetch().await {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::warn!(%error, "AWS credentials could not be renewed; the old ones still hold");
                let renew_at = now.checked_add(RENEW_AGAIN);
                Snapshot::new(old.identity.clone(), old.expires, renew_at)
            }
        };
        self.keep(next)
    }

    async fn fetch(&self) -> Result<Snapshot, AwsError> {
        let keys = match tokio::time::timeout(FETCH, self.provider.provide_credentials()).await {
            Ok(Ok(keys)) => keys,
            Ok(Err(error)) => return Err(self.explain(&error)),
            Err(_elapsed) => {
                let reason = format!("no answer from where they come from within {} s", FETCH.as_secs());
                return Err(AwsError::Credentials { reason, passing: true });
            }
        };
        tracing::debug!("AWS credentials fetched");
        let now = SystemTime::now();
        let expires = keys.expiry();
        let renew_at = expires.map(|end| {
            // A quarter of what is left at most: some sources give short ones, or the same ones until late.
            let left = end.duration_since(now).unwrap_or_default();
            end - RENEW_BEFORE.min(left / 4)
        });
        Ok(Snapshot::new(keys.into(), expires, renew_at))
    }

    fn explain(&self, error: &CredentialsError) -> AwsError {
        let passing = matches!(error, CredentialsError::ProviderTimedOut(_)) || is_connection(error);
        let cause = causes(error);
        let reason = if cause.contains("feature(s) enabled") {
            let profile = self.profile.as_deref().unwrap_or("default");
            format!(
                "profile {profile} signs in with SSO or the console, which takes the AWS CLI; add a profile with \
                 credential_process = aws configure export-credentials --profile {profile} --format process, and name \
                 that one in AWS_PROFILE"
            )
        } else if matches!(error, CredentialsError::CredentialsNotLoaded(_)) || cause.contains("IMDS") {
            // The chain's own words list every place that was asked, in a line that nobody reads to its end.
            tracing::debug!(cause, "no AWS credentials");
            "neither the environment, the profile, nor this machine's role has any: set AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
                .to_owned()
        } else {
            cause
        };
        AwsError::Credentials { reason, passing }
    }

    fn kept(&self) -> Option<Arc<Snapshot>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, fresh: Snapshot) -> Arc<Snapshot> {
        let fresh = Arc::new(fresh);
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Some(fresh.clone());
        fresh
    }
}

/// Keys that stand in the environment itself, as `lookup` reads it. Empty ones count as not set.
pub(super) fn from_environment(lookup: &dyn Fn(&str) -> Option<String>) -> Option<SharedCredentialsProvider> {
    let get = |name| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let (id, secret) = (get("AWS_ACCESS_KEY_ID")?, get("AWS_SECRET_ACCESS_KEY")?);
    let keys = Keys::new(id, secret, get("AWS_SESSION_TOKEN"), None, "environment");
    Some(SharedCredentialsProvider::new(keys))
}

/// Credentials for a stand-in: a profile's, or else `test` and `test`, as LocalStack's users write them.
pub(super) struct LocalCredentials<P>(pub(super) P);

impl<P: ProvideCredentials> ProvideCredentials for LocalCredentials<P> {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            Ok(self.0.provide_credentials().await.unwrap_or_else(|error| {
                tracing::debug!(reason = causes(&error), "no AWS credentials: the local endpoint gets test/test");
                Keys::new("test", "test", None, None, "local")
            }))
        })
    }
}

impl<P> fmt::Debug for LocalCredentials<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalCredentials")
    }
}

fn reached(moment: Option<SystemTime>, now: SystemTime) -> bool {
    moment.is_some_and(|moment| moment <= now)
}

/// Whether the chain failed for want of a connection, which may come back.
fn is_connection(error: &CredentialsError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<ConnectorError>() {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Gives keys that hold for so many seconds from each call, after a step aside for other tasks; fails after a
    /// number of calls.
    #[derive(Debug)]
    struct Source {
        holds: u64,
        good: usize,
        calls: Arc<AtomicUsize>,
    }

    impl ProvideCredentials for Source {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                tokio::task::yield_now().await;
                if self.calls.fetch_add(1, Ordering::Relaxed) >= self.good {
                    return Err(CredentialsError::not_loaded("gone"));
                }
                let end = SystemTime::now() + Duration::from_secs(self.holds);
                Ok(Keys::new("id", "secret", None, Some(end), "test"))
            })
        }
    }

    fn source(holds: u64, good: usize) -> (Arc<Credentials>, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let source = Source { holds, good, calls: calls.clone() };
        (Arc::new(Credentials::new(SharedCredentialsProvider::new(source), None)), calls)
    }

    /// As if the kept credentials had been fetched long ago.
    fn make_due(credentials: &Credentials) {
        let kept = credentials.kept().unwrap();
        let renew_at = Some(SystemTime::now());
        credentials.keep(Snapshot::new(kept.identity.clone(), kept.expires, renew_at));
    }

    #[tokio::test]
    async fn many_callers_fetch_once() {
        let (credentials, calls) = source(3600, 9);
        let all = (0..50).map(|_| {
            let credentials = credentials.clone();
            async move { credentials.get().await.is_ok() }
        });
        assert!(futures_util::future::join_all(all).await.into_iter().all(|ok| ok));
        assert_eq!(calls.load(Ordering::Relaxed), 1);

        make_due(&credentials);
        let old = credentials.kept().unwrap();
        let all = (0..50).map(|_| credentials.get());
        let got = futures_util::future::join_all(all).await;
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        let with_old = got.iter().filter(|one| Arc::ptr_eq(one.as_ref().unwrap(), &old)).count();
        assert_eq!(with_old, 49, "only the one that renews waits");
    }

    #[tokio::test]
    async fn expired_ones_are_never_used() {
        let (credentials, calls) = source(0, 9);
        credentials.get().await.unwrap();
        credentials.get().await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn the_old_ones_serve_while_renewing_fails() {
        let (credentials, calls) = source(3600, 1);
        credentials.get().await.unwrap();
        make_due(&credentials);
        for _ in 0..10 {
            credentials.get().await.unwrap();
        }
        assert_eq!(calls.load(Ordering::Relaxed), 2, "one failure, then a pause");
    }

    #[tokio::test]
    async fn refused_ones_are_forgotten_once() {
        let (credentials, calls) = source(3600, 9);
        let refused = credentials.get().await.unwrap();
        credentials.forget(&refused);
        credentials.get().await.unwrap();
        credentials.forget(&refused);
        credentials.get().await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn errors_say_what_to_do() {
        let explain = |text: &'static str| {
            let (credentials, _) = source(0, 0);
            credentials.explain(&CredentialsError::not_loaded(text)).to_string()
        };
        assert!(explain("no providers in chain").contains("set AWS_ACCESS_KEY_ID"));
        assert!(
            explain("requires following cargo feature(s) enabled: sso")
                .contains("export-credentials --profile default --format process")
        );
    }

    #[tokio::test]
    async fn a_local_endpoint_takes_any() {
        let (_, calls) = source(0, 0);
        let local = LocalCredentials(Source { holds: 0, good: 0, calls });
        assert_eq!(local.provide_credentials().await.unwrap().access_key_id(), "test");
    }
}
