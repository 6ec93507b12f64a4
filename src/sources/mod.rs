//! Sources: rows, and now and then a mark.

mod calendar;
mod cells;
pub mod decode;
pub mod kafka;
pub mod memory;
mod partition;
pub mod postgres;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::batch::Flow;
use crate::error::Result;
use crate::position::Checkpoint;
use crate::table::TableId;

/// What each table already holds; where a source is opened.
pub type Resume = BTreeMap<TableId, Checkpoint>;

/// The last word of a source on what it handed over.
pub trait Confirm: Send + Sync {
    /// Asked before anything is published. An error: what was handed over so far may not be what it was taken for. It is dropped, and the
    /// flow opens again.
    fn confirm(&self) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>>;
}

/// A source is opened by its own constructor, which takes a [`Resume`].
///
/// The contract, which `tests/conformance.rs` holds every source to:
/// - For each table, rows start right behind what the resume holds for it, and come in source order per lane.
/// - A mark contains exactly the rows handed over so far: all rows up to its positions, and none beyond them, per table and lane.
/// - Marks never go back.
/// - `next` is cancel safe: a call that is dropped loses nothing.
pub trait Source: Send {
    /// The next rows or mark, or None at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Flow>>> + Send;

    /// No change up to `upto` will be asked for again. Losing the call costs only space.
    fn release(&mut self, upto: &Checkpoint) -> impl Future<Output = Result<()>> + Send;

    /// Who is asked before what this source handed over is published; None where that needs no other word.
    fn confirm(&self) -> Option<Arc<dyn Confirm>> {
        None
    }

    /// Takes leave: what was released has been heard, and what the source held open is free, as far as a short wait can make it so.
    fn close(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async {}
    }
}
