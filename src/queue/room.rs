//! How much memory messages may take: a bound on the bytes of the bodies that one process holds.
//!
//! Answers are asked for by number, not by size, so how large they are is known only when they begin to arrive. Whoever
//! reads one takes its bytes from the room first, and waits where there are too few. Each message then holds its own
//! [`Share`] until it is dropped, so nobody has to remember to give anything back.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Bytes for bodies. A handle: all clones are the same room.
#[derive(Clone)]
pub struct Room {
    free: Arc<Semaphore>,
    bytes: u32,
    /// How many takers wait.
    waiting: watch::Sender<usize>,
}

/// Bytes taken from a [`Room`], until this is dropped.
pub struct Share(OwnedSemaphorePermit);

impl Room {
    /// A room of so many bytes; what is beyond 4 GiB is not used.
    pub fn new(bytes: u64) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(bytes as usize)), bytes, waiting: watch::Sender::new(0) }
    }

    /// Takes bytes, and waits for them if need be, first come, first served. What is larger than the whole room takes
    /// all of it, so that it goes through alone.
    pub async fn take(&self, bytes: u64) -> Share {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes);
        let permit = match Arc::clone(&self.free).try_acquire_many_owned(bytes) {
            Ok(permit) => permit,
            Err(_too_few) => {
                let _waiting = Waiting::new(&self.waiting);
                let permit = Arc::clone(&self.free).acquire_many_owned(bytes).await;
                permit.expect("a room is never closed")
            }
        };
        Share(permit)
    }

    /// Returns once somebody waits for bytes: whoever holds messages does well to settle them.
    pub async fn runs_short(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender is ours, so this cannot fail.
        drop(waiting.wait_for(|waiting| *waiting > 0).await);
    }

    /// Bytes that nobody has taken.
    pub fn free(&self) -> u64 {
        self.free.available_permits() as u64
    }
}

/// One who waits, until this is dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Share {
    /// Splits so many bytes off, or what there is of them.
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.0.num_permits());
        Self(self.0.split(bytes).expect("no more is asked for than there is"))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_taken_comes_back_when_it_is_dropped() {
        let room = Room::new(100);
        let mut whole = room.take(90).await;
        let part = whole.split(30);
        assert_eq!(room.free(), 10);
        assert!(room.take(20).now_or_never().is_none());
        drop(part);
        assert_eq!(room.take(20).now_or_never().map(|_share| ()), Some(()));
        drop(whole);
        assert_eq!(room.free(), 100);
    }

    #[tokio::test]
    async fn a_wait_shows() {
        let room = Room::new(100);
        let whole = room.take(100).await;
        assert!(room.runs_short().now_or_never().is_none());
        let second = room.take(1);
        tokio::pin!(second);
        assert!(second.as_mut().now_or_never().is_none());
        assert!(room.runs_short().now_or_never().is_some());
        drop(whole);
        drop(second.await);
        assert!(room.runs_short().now_or_never().is_none());
    }

    #[tokio::test]
    async fn what_is_larger_than_the_room_goes_through_alone() {
        let room = Room::new(100);
        let small = room.take(1).await;
        assert!(room.take(1000).now_or_never().is_none());
        drop(small);
        let mut large = room.take(1000).await;
        assert_eq!(room.free(), 0);
        drop(large.split(1000));
        assert_eq!(room.free(), 100);
    }
}
