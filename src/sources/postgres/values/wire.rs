//! Binary values, read from the front: never beyond their end, and to their end.

use super::{BadValue, Read};

/// What is left of a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire<'a>(pub &'a [u8]);

impl<'a> Wire<'a> {
    pub fn bytes(&mut self, length: usize) -> Read<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(too_short)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or_else(too_short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub fn u8(&mut self) -> Read<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn i16(&mut self) -> Read<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Read<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Read<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn f64(&mut self) -> Read<f64> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    /// How many things follow.
    pub fn count(&mut self) -> Read<usize> {
        usize::try_from(self.i32()?).map_err(|_| BadValue::malformed("a count is below zero"))
    }

    /// A value with its length before it, or null.
    pub fn value(&mut self) -> Read<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| BadValue::malformed("a length is below zero"))?;
                self.bytes(length).map(Some)
            }
        }
    }

    /// A value that is never null.
    pub fn present(&mut self) -> Read<&'a [u8]> {
        self.value()?
            .ok_or_else(|| BadValue::malformed("a part of the value is null that cannot be"))
    }

    /// Nothing may be left.
    pub fn end(self) -> Read {
        match self.0 {
            [] => Ok(()),
            _ => Err(BadValue::malformed("the value is longer than its type")),
        }
    }
}

/// All bytes of a value of a fixed length.
#[inline]
pub(super) fn fixed<const N: usize>(bytes: &[u8]) -> Read<[u8; N]> {
    bytes
        .try_into()
        .map_err(|_| BadValue::malformed("the value is not as long as its type"))
}

#[cold]
fn too_short() -> BadValue {
    BadValue::malformed("the value ends too early")
}
