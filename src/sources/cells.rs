//! Cells of text and bytes behind each other, and nothing but appending and cutting off.
//!
//! Arrow's own builders cannot be cut back. A value that fails half-way must leave no trace, so these can.

use arrow::array::{ArrayRef, BinaryArray, BooleanBufferBuilder, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use std::sync::Arc;

use crate::error::{Error, Result};

/// The cells of one column of one run do not end within 2 GiB, as far as Arrow's offsets reach.
#[derive(Debug)]
pub(super) struct Overflow;

/// Which cells are there. Most columns have no null in most runs, and then only count.
#[derive(Debug, Default)]
pub(super) struct Validity {
    len: usize,
    /// From the first null on.
    bits: Option<BooleanBufferBuilder>,
}

impl Validity {
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn push(&mut self, valid: bool) {
        if let Some(bits) = &mut self.bits {
            bits.append(valid);
        } else if !valid {
            let bits = self.bits.insert(BooleanBufferBuilder::new(self.len + 1));
            bits.append_n(self.len, true);
            bits.append(false);
        }
        self.len += 1;
    }

    pub fn ends_with_null(&self) -> bool {
        self.bits.as_ref().is_some_and(|bits| self.len > 0 && !bits.get_bit(self.len - 1))
    }

    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            if let Some(bits) = &mut self.bits {
                bits.truncate(len);
            }
        }
    }

    pub fn finish(&mut self) -> Option<NullBuffer> {
        self.len = 0;
        let nulls = NullBuffer::new(self.bits.take()?.finish());
        (nulls.null_count() > 0).then_some(nulls)
    }
}

/// Where each cell ends in what lies behind each other.
#[derive(Debug)]
pub(super) struct Ends(Vec<i32>);

impl Ends {
    pub fn new() -> Self {
        Self(vec![0])
    }

    /// Where the last cell ends.
    pub fn last(&self) -> usize {
        self.0.last().map_or(0, |end| *end as usize)
    }

    #[inline]
    pub fn push(&mut self, end: usize) -> Result<(), Overflow> {
        let end = i32::try_from(end).map_err(|_| Overflow)?;
        self.0.push(end);
        Ok(())
    }

    /// A cell of nothing.
    pub fn push_empty(&mut self) {
        self.0.push(self.last() as i32);
    }

    pub fn truncate(&mut self, cells: usize) {
        self.0.truncate(cells + 1);
    }

    pub fn range(&self, cell: usize) -> std::ops::Range<usize> {
        self.0[cell] as usize..self.0[cell + 1] as usize
    }

    pub fn finish(&mut self) -> OffsetBuffer<i32> {
        let ends = std::mem::replace(self, Self::new());
        OffsetBuffer::new(ScalarBuffer::from(ends.0))
    }
}

/// A column of texts or bytes.
#[derive(Debug)]
pub(super) struct Bytes {
    pub ends: Ends,
    pub data: Vec<u8>,
}

impl Bytes {
    pub fn new() -> Self {
        Self {
            ends: Ends::new(),
            data: Vec::new(),
        }
    }

    /// Makes a cell of what has been appended to `data` since the last one.
    #[inline]
    pub fn close(&mut self) -> Result<(), Overflow> {
        self.ends.push(self.data.len())
    }

    pub fn get(&self, cell: usize) -> &[u8] {
        &self.data[self.ends.range(cell)]
    }

    /// Cuts back to so many cells, and whatever was begun behind them.
    pub fn truncate(&mut self, cells: usize) {
        self.ends.truncate(cells);
        self.data.truncate(self.ends.last());
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        // The next run is likely to be as large as this one.
        let room = Vec::with_capacity(self.data.len());
        (self.ends.finish(), Buffer::from_vec(std::mem::replace(&mut self.data, room)))
    }

    pub fn finish_text(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let (ends, data) = self.take();
        let array = StringArray::try_new(ends, data, nulls);
        array
            .map(|a| Arc::new(a) as ArrayRef)
            .map_err(|e| Error::bug("a decoded column of text is none").because(e))
    }

    pub fn finish_binary(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let (ends, data) = self.take();
        let array = BinaryArray::try_new(ends, data, nulls);
        array
            .map(|a| Arc::new(a) as ArrayRef)
            .map_err(|e| Error::bug("a decoded column of bytes is none").because(e))
    }
}
