//! What an encoder has written and nobody has taken yet, in pieces: one long buffer would be copied each time that it has to grow, and a row
//! group stand in memory twice.

use std::io::{self, Write};

use bytes::Bytes;

/// Parts of an upload are many of them.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
pub struct Pieces {
    whole: Vec<Bytes>,
    begun: Vec<u8>,
}

impl Pieces {
    /// All that was written since the last time, in order.
    pub fn take(&mut self) -> Vec<Bytes> {
        if !self.begun.is_empty() {
            self.end();
        }
        std::mem::take(&mut self.whole)
    }

    fn end(&mut self) {
        self.whole.push(std::mem::take(&mut self.begun).into());
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.begun.len() + bytes.len() > PIECE_BYTES && !self.begun.is_empty() {
            self.end();
        }
        self.begun.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_what_was_written() {
        let written: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|at| (at % 251) as u8).collect();
        for step in [1 << 10, 300 << 10, PIECE_BYTES, 2 * PIECE_BYTES + 1] {
            let (mut pieces, mut taken) = (Pieces::default(), Vec::new());
            for (turn, part) in written.chunks(step).enumerate() {
                pieces.write_all(part).unwrap();
                if turn % 7 == 3 {
                    taken.extend(pieces.take());
                }
            }
            taken.extend(pieces.take());
            assert!(pieces.take().is_empty());
            assert!(taken.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE_BYTES.max(step)));
            assert!(taken.concat() == written, "in steps of {step}");
        }
    }
}
