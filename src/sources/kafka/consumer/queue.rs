//! Queues of fetched records, read in runs without a copy.
//!
//! librdkafka hands out whole arrays of records only by its C interface (`rd_kafka_consume_batch_queue`); one call and one allocation
//! per record, as the safe wrapper has it, costs more than the decoding of small records. The `unsafe` of fetching stands in this file.

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::error::{IsError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use super::Reader;
use crate::error::{Error, Result};
use crate::sources::decode::{Headers, Message, ReadHeaders};

/// A queue of its own, to which partitions are directed. Records of a partition keep their order in it.
pub(super) struct Queue {
    native: NonNull<native::rd_kafka_queue_t>,
    /// A queue must not outlive its client.
    reader: Arc<Reader>,
}

// SAFETY: librdkafka's objects may be used from any thread.
unsafe impl Send for Queue {}
unsafe impl Sync for Queue {}

impl Queue {
    pub(super) fn new(reader: &Arc<Reader>) -> Result<Self> {
        // SAFETY: the client lives, for we hold it.
        let native = NonNull::new(unsafe { native::rd_kafka_queue_new(reader.native()) });
        let native = native.ok_or_else(|| Error::bug("the Kafka client made no queue"))?;
        Ok(Self {
            native,
            reader: Arc::clone(reader),
        })
    }

    /// Directs a partition here. To be called before the partition is assigned: then no record can come anywhere else.
    pub(super) fn direct(&self, topic: &str, partition: i32) -> Result<()> {
        let name = CString::new(topic).map_err(|e| Error::bug(format!("topic `{topic}` has a zero byte in its name")).because(e))?;
        // SAFETY: client, name and both queues live during the calls; the partition's queue is given back after its use.
        unsafe {
            let source = native::rd_kafka_queue_get_partition(self.reader.native(), name.as_ptr(), partition);
            if source.is_null() {
                return Err(Error::bug(format!("the Kafka client has no queue for {topic}/{partition}")));
            }
            native::rd_kafka_queue_forward(source, self.native.as_ptr());
            native::rd_kafka_queue_destroy(source);
        }
        Ok(())
    }

    /// Empties `run` and fills it with what has come. Waits up to `wait` for the first record, then up to `linger` for more. An empty run
    /// means that nothing came.
    pub(super) fn fill(&self, run: &mut Fetched, wait: Duration, linger: Duration) {
        run.clear();
        let capacity = run.records.capacity();
        // SAFETY: the queue lives. Each pointer that librdkafka hands out is ours until `rd_kafka_message_destroy`, which `Fetched`
        // calls once. The second call writes at most `capacity - 1` pointers behind the first and returns how many.
        unsafe {
            let first = native::rd_kafka_consume_queue(self.native.as_ptr(), millis(wait));
            let Some(first) = NonNull::new(first) else { return };
            run.records.push(first);
            let rest = run.records.as_mut_ptr().add(1).cast();
            let more = native::rd_kafka_consume_batch_queue(self.native.as_ptr(), millis(linger), rest, capacity - 1);
            run.records.set_len(1 + usize::try_from(more).unwrap_or(0));
        }
    }

    /// Ends a wait in [`Self::fill`] at once.
    pub(super) fn wake(&self) {
        // SAFETY: the queue lives.
        unsafe { native::rd_kafka_queue_yield(self.native.as_ptr()) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again. Partitions that are directed here hold it until they are directed elsewhere.
        unsafe { native::rd_kafka_queue_destroy(self.native.as_ptr()) }
    }
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// A run of fetched records, owned until it is cleared.
pub(super) struct Fetched {
    records: Vec<NonNull<native::rd_kafka_message_t>>,
}

impl Fetched {
    pub(super) fn with_capacity(records: usize) -> Self {
        Self {
            records: Vec::with_capacity(records.max(2)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        // SAFETY: the pointers are valid until `clear`, which needs `&mut self`.
        self.records.iter().map(|record| Item(unsafe { record.as_ref() }, PhantomData))
    }

    fn clear(&mut self) {
        for record in self.records.drain(..) {
            // SAFETY: ours, and given back once, for it is taken out of the list.
            unsafe { native::rd_kafka_message_destroy(record.as_ptr()) }
        }
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What comes out of a queue: a record, the end of a partition, or an error.
#[derive(Clone, Copy)]
pub(super) struct Item<'a>(&'a native::rd_kafka_message_t, PhantomData<&'a Fetched>);

impl<'a> Item<'a> {
    pub(super) fn error(self) -> Option<RDKafkaErrorCode> {
        self.0.err.is_error().then(|| self.0.err.into())
    }

    /// What librdkafka says about an error.
    pub(super) fn reason(self) -> String {
        // SAFETY: the text lives as long as the message.
        let text = unsafe { native::rd_kafka_message_errstr(self.0) };
        if text.is_null() {
            String::new()
        } else {
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        }
    }

    /// Tells topics apart without reading their names.
    pub(super) fn topic_handle(self) -> usize {
        self.0.rkt as usize
    }

    pub(super) fn topic(self) -> &'a str {
        if self.0.rkt.is_null() {
            return "";
        }
        // SAFETY: the message holds its topic, and the topic its name.
        let name = unsafe { CStr::from_ptr(native::rd_kafka_topic_name(self.0.rkt)) };
        // Kafka's topic names are letters, digits, `.`, `_` and `-`.
        name.to_str().unwrap_or("")
    }

    pub(super) fn partition(self) -> i32 {
        self.0.partition
    }

    pub(super) fn offset(self) -> i64 {
        self.0.offset
    }

    /// Who served it.
    pub(super) fn broker(self) -> i32 {
        // SAFETY: the message lives.
        unsafe { native::rd_kafka_message_broker_id(self.0) }
    }

    /// The record, for a decoder.
    pub(super) fn message(self, topic: &'a str) -> Message<'a> {
        let bytes = |at: *mut std::ffi::c_void, len: usize| {
            // SAFETY: librdkafka's pair of pointer and length, valid as long as the message.
            (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at.cast::<u8>().cast_const(), len) })
        };
        let mut kind = native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives.
        let timestamp_ms = unsafe { native::rd_kafka_message_timestamp(self.0, &mut kind) };
        let stamped = kind != native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && timestamp_ms >= 0;
        Message {
            topic,
            partition: self.0.partition,
            offset: self.0.offset,
            timestamp_ms: stamped.then_some(timestamp_ms),
            key: bytes(self.0.key, self.0.key_len),
            value: bytes(self.0.payload, self.0.len),
            headers: Headers(Some(Record::of(self.0))),
        }
    }
}

/// A record whose headers are read when they are asked for.
#[repr(transparent)]
struct Record(native::rd_kafka_message_t);

impl Record {
    fn of(message: &native::rd_kafka_message_t) -> &Self {
        // SAFETY: transparent, so both have one layout.
        unsafe { &*ptr::from_ref(message).cast() }
    }

    fn headers(&self) -> Option<NonNull<native::rd_kafka_headers_t>> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message lives, and keeps the headers that it hands out.
        let error = unsafe { native::rd_kafka_message_headers(&self.0, &mut headers) };
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            NonNull::new(headers)
        } else {
            None
        }
    }
}

impl ReadHeaders for Record {
    fn count(&self) -> usize {
        // SAFETY: the headers live as long as the message.
        self.headers()
            .map_or(0, |headers| unsafe { native::rd_kafka_header_cnt(headers.as_ptr()) })
    }

    fn header(&self, index: usize) -> (&str, Option<&[u8]>) {
        let Some(headers) = self.headers() else { return ("", None) };
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers live as long as the message, and so do the name and the value that they hand out.
        unsafe {
            let error = native::rd_kafka_header_get_all(headers.as_ptr(), index, &mut name, &mut value, &mut size);
            if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                return ("", None);
            }
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
            (CStr::from_ptr(name).to_str().unwrap_or("\u{fffd}"), value)
        }
    }
}
