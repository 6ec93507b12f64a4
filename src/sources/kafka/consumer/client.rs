//! A client of librdkafka whose end does not depend on brokers that do not answer.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use tracing::warn;

use super::Context;

/// How long a client may take to close. A broker that answers takes some milliseconds to hear of it.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// Closes on a thread of its own: whatever it still has to tell the brokers are hints, and a stop has its `grace`.
pub(super) struct Client(ManuallyDrop<BaseConsumer<Context>>);

impl Client {
    pub(super) fn new(consumer: BaseConsumer<Context>) -> Self {
        Self(ManuallyDrop::new(consumer))
    }
}

impl Deref for Client {
    type Target = BaseConsumer<Context>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: taken once, for nothing comes after drop.
        let consumer = unsafe { ManuallyDrop::take(&mut self.0) };
        let (open, closed) = channel::<()>();
        let close = move || {
            drop(consumer);
            drop(open);
        };
        // Where there is no thread for it, it is closed here.
        let closing = thread::Builder::new().name("kafka-close".to_owned()).spawn(close);
        if closing.is_ok() && closed.recv_timeout(CLOSE_MAX) == Err(RecvTimeoutError::Timeout) {
            warn!("closing takes long: the client is left to close by itself");
        }
    }
}
