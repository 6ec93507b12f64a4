//! Questions of administrators, which the safe wrapper does not have. What is asked, and what an answer says, is its asker's to know.

use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::bindings as native;
use rdkafka::error::{IsError, RDKafkaErrorCode};
use rdkafka::types::RDKafka;

use super::Reader;
use super::topics::LOOK_EVERY;
use crate::error::Result;

/// An answer, given back by drop.
pub(super) struct Answer {
    event: NonNull<native::rd_kafka_event_t>,
}

impl Answer {
    /// What it says is read from here, for as long as it is held.
    pub(super) fn event(&self) -> *mut native::rd_kafka_event_t {
        self.event.as_ptr()
    }

    pub(super) fn error(&self) -> Option<RDKafkaErrorCode> {
        // SAFETY: the event lives.
        let error = unsafe { native::rd_kafka_event_error(self.event.as_ptr()) };
        error.is_error().then(|| error.into())
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: ours, and given back once.
        unsafe { native::rd_kafka_event_destroy(self.event.as_ptr()) }
    }
}

/// Whether READ is among operations that an answer says are allowed; None where it says nothing of them.
///
/// # Safety
///
/// There are so many, if the pointer is not null.
pub(super) unsafe fn may_read(operations: *const native::rd_kafka_AclOperation_t, count: usize) -> Option<bool> {
    let read = native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ as u32;
    // As numbers: the broker may know more of them than these bindings.
    let operations = operations.cast::<u32>();
    // SAFETY: the caller's promise.
    (!operations.is_null()).then(|| (0..count).any(|place| unsafe { *operations.add(place) } == read))
}

/// Has the brokers tell what we may do, beside what they are asked.
///
/// # Safety
///
/// The options live.
pub(super) unsafe fn ask_for_operations(options: *mut native::rd_kafka_AdminOptions_t) {
    // SAFETY: the caller's promise. What the option may be refused for is ours to give back.
    unsafe {
        let misfit = native::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        native::rd_kafka_error_destroy(misfit);
    }
}

impl Reader {
    /// Asks, and waits until there is an answer, time is up, or the client says why there never will be one. `send` hands the question to
    /// the client, with options for this kind of question; the queue is where the answer is to come.
    pub(super) fn ask_as_administrator(
        &self,
        kind: native::rd_kafka_admin_op_t,
        patience: Duration,
        send: impl FnOnce(*mut RDKafka, *mut native::rd_kafka_AdminOptions_t, *mut native::rd_kafka_queue_t),
    ) -> Result<Answer> {
        // SAFETY: client, options and queue live while they are used, and each is given back once. An answer that comes after the queue was
        // given back is dropped by librdkafka.
        let event = unsafe {
            let client = self.native();
            let queue = native::rd_kafka_queue_new(client);
            let options = native::rd_kafka_AdminOptions_new(client, kind);
            let wait_ms = patience.as_millis() as i32;
            native::rd_kafka_AdminOptions_set_request_timeout(options, wait_ms, ptr::null_mut(), 0);
            send(client, options, queue);
            native::rd_kafka_AdminOptions_destroy(options);
            // That time is up the client says itself, where it comes to it.
            let deadline = Instant::now() + patience + LOOK_EVERY * 4;
            let event = loop {
                let event = native::rd_kafka_queue_poll(queue, LOOK_EVERY.as_millis() as i32);
                let over = Instant::now() >= deadline || self.stopping.load(Ordering::Relaxed);
                if !event.is_null() || over || self.faults.hopeless(&self.brokers).is_some() {
                    break event;
                }
            };
            native::rd_kafka_queue_destroy(queue);
            event
        };
        NonNull::new(event)
            .map(|event| Answer { event })
            .ok_or_else(|| self.faults.unanswered(&self.brokers))
    }
}
