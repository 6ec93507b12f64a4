//! A client of librdkafka whose end does not depend on brokers that do not answer.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use tracing::dispatcher::{Dispatch, with_default};
use tracing::{debug, warn};

use super::Context;

/// Closes on a thread of its own: whatever it still has to tell the brokers are hints, and a stop has its `grace`.
pub(super) struct Client {
    consumer: ManuallyDrop<BaseConsumer<Context>>,
    close_max: Duration,
}

impl Client {
    /// `close_max`: how long it may take to close.
    pub(super) fn new(consumer: BaseConsumer<Context>, close_max: Duration) -> Self {
        Self {
            consumer: ManuallyDrop::new(consumer),
            close_max,
        }
    }
}

impl Deref for Client {
    type Target = BaseConsumer<Context>;

    fn deref(&self) -> &Self::Target {
        &self.consumer
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: taken once, for nothing comes after drop.
        let consumer = unsafe { ManuallyDrop::take(&mut self.consumer) };
        let (open, closed) = channel::<()>();
        let close = move || {
            leave(consumer);
            drop(open);
        };
        // Where there is no thread for it, it is closed here.
        let closing = thread::Builder::new().name("kafka-close".to_owned()).spawn(close);
        if closing.is_ok() && closed.recv_timeout(self.close_max) == Err(RecvTimeoutError::Timeout) {
            warn!("closing takes long: the client is left to close by itself");
        }
    }
}

/// Takes leave of the brokers. A client that its group has expelled cannot: the wrapper calls that an error, and it was told before.
fn leave(consumer: BaseConsumer<Context>) {
    match consumer.client().fatal_error() {
        None => drop(consumer),
        Some((_, reason)) => {
            debug!(reason, "an expelled client ends without taking leave");
            with_default(&Dispatch::none(), || drop(consumer));
        }
    }
}
