//! Which key a worker makes tokens with. When a rotation has replaced it, what was masked with it goes back to the queue,
//! and the worker takes up the key that makes tokens now, from its directory. It receives nothing before it has that key.

use thiserror::Error;

use super::{Surroundings, mask::Masker, retry, status::Trouble};
use crate::{
    sink::{Sink, SinkError},
    vault::{
        keyfile::KeyError,
        token::{TokenRoot, TooLong},
    },
};

/// Why it has no such key, by what helps.
#[derive(Debug, Error)]
enum Missing {
    /// Wait for the database.
    #[error("{0}")]
    Sink(#[from] SinkError),
    /// Bring the file here.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// Bring the right file here.
    #[error("the token key with id {0} here is not the one that this database knows: copy it from where it was made")]
    Other(u8),
    /// Note one: the database was emptied by hand.
    #[error("the database knows no key that makes tokens: start this worker again")]
    None,
    #[error("{0}")]
    Domain(#[from] TooLong),
}

/// Takes up the key that makes tokens now, however long it takes to be here. `false`: it is time to stop instead.
pub(super) async fn renew<S: Sink>(sink: &mut S, masker: &mut Masker, surroundings: Surroundings<'_>) -> bool {
    let Surroundings { status, shutdown, .. } = surroundings;
    let mut patience = retry::patience(&status.keys, shutdown);
    loop {
        match take_up(sink, masker).await {
            Ok(()) => {
                tracing::info!(key_id = masker.keys().token.kid().get(), "makes tokens with another key from now on");
                status.clear(Trouble::Keys);
                patience.done();
                return true;
            }
            Err(missing) => status.set(Trouble::Keys, &missing),
        }
        if !patience.outage().await {
            return false;
        }
    }
}

async fn take_up<S: Sink>(sink: &mut S, masker: &mut Masker) -> Result<(), Missing> {
    let active = sink.active_key().await?.ok_or(Missing::None)?;
    let keys = masker.keys().with_kid(active.kid).await?;
    if !is_known(&keys.token, &active.check) {
        return Err(Missing::Other(active.kid.get()));
    }
    Ok(masker.use_keys(keys)?)
}

fn is_known(token: &TokenRoot, check: &[u8]) -> bool {
    token.check_value() == check
}
